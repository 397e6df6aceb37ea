"""The arms of a run as a table for the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probe.reports.html.numbers import interval, number, percent
from probe.reports.run.arms import gap_of, in_order, no_gap, seeds_of

if TYPE_CHECKING:
    from rich.table import Table


def arms_table(results: Mapping[str, Any]) -> "Table":
    """Every arm with its accuracy, the gap it recovers and what it cost; one more line for each seed of the hybrid.

    Columns: ``steered`` is a share of tokens, ``tokens`` the mean length of an answer, ``cut`` the share of answers
    that the limit on tokens stopped, ``s`` seconds.

    Args:
        results: the contents of ``results.json``.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    arms, problems = results.get("arms") or {}, results.get("problems") or {}
    where = (
        f"{problems.get('n', '?')} {problems.get('split', '')} problems of {problems.get('name', '?')}, 95% intervals"
    )
    # Text, not str: names come from files, and rich would read [bold] in them. The whole fits into 80 columns.
    title = Text(f"{results.get('pair', 'run')} · {where}")
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True
    )
    table.add_column("arm", no_wrap=True)
    for name in ("correct", "gap recovered", "steered", "tokens", "cut", "s"):
        table.add_column(name, justify="right", no_wrap=True)

    without_gap = no_gap(results)
    for name in in_order(arms):
        arm = arms[name]
        table.add_row(
            Text(name),
            _with(arm.get("accuracy"), arm.get("ci")),
            "" if name in ("base", "thinking") else "no gap" if without_gap else _with(*gap_of(results, name)),
            percent(arm.get("steered_fraction"), 1),
            number(arm.get("tokens_per_answer"), 0),
            percent(arm.get("truncated")),
            number(arm.get("seconds"), 0),
            style="bold" if name == "hybrid" else None,
        )
        for seed in seeds_of(results) if name == "hybrid" else []:
            gap = "no gap" if without_gap else _with(seed["gap"], seed["ci"])
            table.add_row(Text(f"  seed {seed['seed']}"), _with(seed["accuracy"], None), gap, style="dim")
    return table


def _with(value: float | None, low_high: Sequence[float] | None) -> str:
    return f"{percent(value)} {interval(low_high)}".strip()


def own_table(found: Mapping[str, Any]) -> "Table":
    """One arm of somebody's own, beside the two models.

    Args:
        found: what ``probe.pipeline.run.own.try_arm`` gives.
    """
    from rich import box
    from rich.table import Table

    table = Table(
        "", "", box=box.SIMPLE, show_header=False, title=f"{found['name']} · {found['n']} {found['split']} problems"
    )
    gap = found["gap_recovered"]
    rows = {
        "correct": f"{percent(found['accuracy'])} {interval(found['ci'])}",
        "base, thinking": f"{percent(found['base'])}, {percent(found['thinking'])}",
        "gap recovered": f"{percent(gap['value'])} {interval(gap['ci'])}",
        "p against base": number(found["p"], 4),
        "tokens steered": percent(found["steered_fraction"], 1),
        "bits a token from the thinking model": number(found["bits_per_token"]),
        "agreement with the thinking model": percent(found["agreement"], 1),
        "fitted parameters": number(found["fitted_parameters"], 0),
        "tokens an answer": number(found["tokens_per_answer"], 0),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table

"""Tables of arms for the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probe.reports.html.numbers import estimate, number, p_value, percent
from probe.reports.html.terminal import add_row, listing, terminal_table
from probe.reports.run.arms import gap_of, in_order, no_gap, seeds_of
from probe.reports.run.training import curve_rows, not_converged

if TYPE_CHECKING:
    from rich.table import Table


def arms_table(results: Mapping[str, Any]) -> "Table":
    """Tabulate every arm with its accuracy, the gap that it recovers and its cost, and each seed of the hybrid.

    If answers of any arm end in a loop, their share replaces the seconds.

    Args:
        results: the contents of ``results.json``.
    """
    arms, problems = results.get("arms") or {}, results.get("problems") or {}
    columns, rows = arm_rows(results)
    samples = max((arm.get("samples") or 1 for arm in arms.values()), default=1)
    where = (
        f"{problems.get('n', '?')} {problems.get('split', '')} problems of {problems.get('name', '?')}"
        f"{f' × {samples} samples' if samples > 1 else ''}, 95% intervals"
    )
    table = terminal_table(columns, title=f"{results.get('pair', 'run')} · {where}")
    without_gap = no_gap(results)
    for name, cells in zip(in_order(arms), rows, strict=True):
        add_row(table, cells, "bold" if name == "hybrid" else None)
        for seed in seeds_of(results) if name == "hybrid" else []:
            gap = "no gap" if without_gap else _with(seed["gap"], seed["ci"])
            add_row(table, (f"  seed {seed['seed']}" + " *" * seed["marked"], percent(seed["accuracy"]), gap), "dim")
    last = "loops: answers that end in one" if "loops" in columns else "s: seconds"
    meaning = [
        "steered: share of the tokens · tokens: mean length of an answer",
        f"cut: answers at the limit on tokens · {last}",
    ]
    if any(not_converged(results, name) for name in arms):
        meaning.append("* has a part that has not converged")
    table.caption = "\n".join(meaning)
    return table


def arm_rows(results: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Write the cells of :func:`arms_table`, without the rows of the seeds.

    Args:
        results: the contents of ``results.json``.

    Returns:
        The headings, and a row for each arm.
    """
    arms, without_gap = results.get("arms") or {}, no_gap(results)
    loops = any(arm.get("looping") for arm in arms.values())
    rows = []
    for name in in_order(arms):
        arm = arms[name]
        gap = "" if name in ("base", "thinking") else "no gap" if without_gap else _with(*gap_of(results, name))
        cells = (
            f"{name} *" if not_converged(results, name) else name,
            _with(arm.get("accuracy"), arm.get("ci")),
            gap,
            percent(arm.get("steered_fraction"), 1),
            number(arm.get("tokens_per_answer"), 0),
            percent(arm.get("truncated")),
            percent(arm.get("looping")) if loops else number(arm.get("seconds"), 0),
        )
        rows.append(cells)
    # These columns fit into 80 characters.
    return ("arm", "correct", "gap recovered", "steered", "tokens", "cut", "loops" if loops else "s"), rows


def curve_table(results: Mapping[str, Any]) -> "Table":
    """Tabulate the gap that each learned arm recovers by the number of train traces.

    Args:
        results: the contents of ``results.json`` of a run with a learning curve.
    """
    rows = curve_rows(results)
    arms = list(rows[0]["arms"])
    table = terminal_table(
        ("arm", *(f"{row['traces']} traces" for row in rows)), title="Gap recovered, by the number of train traces"
    )
    for name in arms:
        cells = [row["arms"][name] for row in rows]
        add_row(
            table,
            (
                name,
                *(
                    "no gap" if cell["gap"] is None else _with(cell["gap"], cell["ci"]) + " *" * cell["marked"]
                    for cell in cells
                ),
            ),
        )
    return table


def _with(value: float | None, ci: Sequence[float] | None) -> str:
    return estimate({"value": value, "ci": ci})


def own_table(found: Mapping[str, Any]) -> "Table":
    """Tabulate the result of a user-made arm beside the two models.

    Args:
        found: from :func:`probe.pipeline.try_arm`.
    """
    rows = {
        "correct": _with(found["accuracy"], found["ci"]),
        "base, thinking": f"{percent(found['base'])}, {percent(found['thinking'])}",
        "gap recovered": estimate(found["gap_recovered"]),
        "p against base": p_value(found["p"]),
        "tokens steered": percent(found["steered_fraction"], 1),
        "bits per token from the thinking model": number(found["bits_per_token"]),
        "agreement with the thinking model": percent(found["agreement"], 1),
        "fitted parameters": number(found["fitted_parameters"], 0),
        "tokens per answer": number(found["tokens_per_answer"], 0),
    }
    return listing(rows.items(), f"{found['name']} · {found['n']} {found['split']} problems")

"""The arms of a run as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from probe.reports.arms import gap_of, has_gap, in_order, seeds_of
from probe.reports.numbers import interval, number, percent

if TYPE_CHECKING:
    from rich.table import Table


def arms_table(results: Mapping[str, Any]) -> Table:
    """Every arm with its accuracy, the gap it recovers and what it cost; one more line for each seed of the hybrid.

    Args:
        results: the contents of ``results.json``.
    """
    from rich.table import Table
    from rich.text import Text

    arms, problems = results.get("arms") or {}, results.get("problems") or {}
    # Text, not str: names come from files, and rich would read [bold] in them.
    table = Table(title=Text(f"{results.get('pair', 'run')} · {problems.get('n', '?')} {problems.get('split', '')} problems"))
    table.add_column("arm")
    for name in ("correct", "95% CI", "gap recovered", "tokens steered", "tokens/answer", "truncated", "seconds"):
        table.add_column(name, justify="right")

    for name in in_order(arms):
        arm = arms[name]
        gap, low_high = gap_of(results, name)
        recovered = "no gap" if name == "hybrid" and not has_gap(results) else f"{percent(gap)} {interval(low_high)}".strip()
        table.add_row(
            Text(name),
            percent(arm.get("accuracy")),
            interval(arm.get("ci")),
            recovered if name not in ("base", "thinking") else "",
            percent(arm.get("steered_fraction"), 1),
            number(arm.get("tokens_per_answer"), 0),
            percent(arm.get("truncated"), 1),
            number(arm.get("seconds"), 1),
            style="bold" if name == "hybrid" else None,
        )
        for seed in seeds_of(results) if name == "hybrid" else []:
            gap = f"{percent(seed['gap'])} {interval(seed['ci'])}".strip()
            table.add_row(Text(f"  seed {seed['seed']}"), percent(seed["accuracy"]), "", gap, "", "", "", "", style="dim")
    return table

"""An adapter and a study of objectives as tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probe.reports.adapter.rows import study_rows, verification_rows
from probe.reports.html.terminal import listing, terminal_table

if TYPE_CHECKING:
    from rich.table import Table


def verification_table(
    history: Sequence[Mapping[str, float]],
    cost: Mapping[str, float],
    found: Mapping[str, Any] | None,
    *,
    converged: bool = True,
) -> "Table":
    """The rows of :func:`~probe.reports.adapter.rows.verification_rows` as a table for the terminal."""
    return listing(verification_rows(history, cost, found, converged=converged).items())


def study_table(study: Mapping[str, Any]) -> "Table":
    """A study as a table for the terminal: each row's measures with their intervals.

    Args:
        study: what ``study.json`` holds.
    """
    found = study_rows(study["rows"])
    rows = [(row["name"], *("\n".join(each) for each in row["cells"])) for row in found["rows"]]
    meaning = [f"{name}: {what}" for name, what in (study.get("measures") or {}).items() if name in found["measures"]]
    caption = "\n".join(
        [*meaning, "With 95% intervals; the word after a colon is what was inserted in place of the SAE"]
    )
    return terminal_table(["objective", *found["measures"]], rows, caption=caption)

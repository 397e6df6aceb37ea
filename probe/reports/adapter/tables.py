"""An adapter's training and verification, and a study of objectives, as tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probe.reports.adapter.rows import study_rows, verification_rows

if TYPE_CHECKING:
    from rich.table import Table


def verification_table(
    history: Sequence[Mapping[str, float]], cost: Mapping[str, float], found: Mapping[str, Any] | None
) -> "Table":
    """The same as a table for the terminal."""
    from rich import box
    from rich.table import Table

    table = Table("", "", box=box.SIMPLE, show_header=False)
    for name, value in verification_rows(history, cost, found).items():
        table.add_row(name, value)
    return table


def study_table(study: Mapping[str, Any]) -> "Table":
    """A study for the terminal: of every row the measures with their intervals.

    Args:
        study: ``study.json``.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = study_rows(study["rows"])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    for name in found["measures"]:
        table.add_column(name, justify="right")
    for row in found["rows"]:
        table.add_row(Text(row["name"]), *(Text("\n".join(each)) for each in row["cells"]))
    return table

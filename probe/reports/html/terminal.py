"""Tables for the terminal."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def terminal_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]] = (),
    *,
    title: str | None = None,
    caption: str | None = None,
    left: int = 1,
) -> "Table":
    """Make a table for the terminal. Where the terminal is narrow, it has another layout, and nothing is cut off.

    Args:
        columns: the headings; the first ``left`` columns are aligned left, all others right.
        rows: the cells of each row; :func:`add_row` adds further rows.
        caption: what the headings mean, in a sentence or a list below the table.
    """
    from rich import box
    from rich.text import Text

    from probe.reports.html.fitting import FittingTable

    table = FittingTable(
        title=None if title is None else Text(title),
        title_justify="left",
        caption=None if caption is None else Text(caption),
        caption_justify="left",
        caption_style="dim",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for i, name in enumerate(columns):
        table.add_column(Text(name), justify="left" if i < left else "right", overflow="fold")
    for row in rows:
        add_row(table, row)
    return table


def add_row(table: "Table", cells: Iterable[str], style: str | None = None) -> None:
    """Add a row; texts are shown as they are, because names come from files and rich would read [bold] in them."""
    from rich.text import Text

    table.add_row(*map(Text, cells), style=style)


def listing(rows: Iterable[Sequence[str]], title: str | None = None, caption: str | None = None) -> "Table":
    """Make a table without headings, such as a list of names and values."""
    table = terminal_table((), title=title, caption=caption)
    table.show_header = False
    for row in rows:
        while len(table.columns) < len(row):
            table.add_column("", overflow="fold")
        add_row(table, row)
    return table

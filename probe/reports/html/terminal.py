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
    left: int = 1,
    wrap: bool = False,
) -> "Table":
    """Make a table for the terminal.

    Args:
        columns: the headings; the first ``left`` columns are aligned left, all others right.
        rows: the cells of each row; :func:`add_row` adds further rows.
        wrap: break long cells into lines where the terminal is narrow; otherwise they are cut off.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=None if title is None else Text(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for i, name in enumerate(columns):
        table.add_column(Text(name), justify="left" if i < left else "right", no_wrap=not wrap)
    for row in rows:
        add_row(table, row)
    return table


def add_row(table: "Table", cells: Iterable[str], style: str | None = None) -> None:
    """Add a row; texts are shown as they are, because names come from files and rich would read [bold] in them."""
    from rich.text import Text

    table.add_row(*map(Text, cells), style=style)


def listing(rows: Iterable[Sequence[str]], title: str | None = None) -> "Table":
    """Make a table without headings, such as a list of names and values."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, show_header=False, title=None if title is None else Text(title))
    for row in rows:
        add_row(table, row)
    return table

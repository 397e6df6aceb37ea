"""A table that fits into the terminal: as columns if there is room, otherwise as a few lines for each row."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

_NARROWEST = 12
"""The number of characters from which on a column may be made narrower."""
_FIRST = 16
"""The same of the first column, which names the row and may be broken after a hyphen."""


class FittingTable(Table):
    """A table of which nothing is cut off, however narrow the terminal is.

    Where the columns are too wide, long cells get several lines, and an interval is not divided. Where that is not
    enough, each row becomes a few lines: its first cell, and below it the other cells with their headings.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        """Choose the layout for the width of the terminal; title and caption may be wider than the table."""
        if self.title:
            yield Text(_text(self.title), style="table.title")
        yield from self._body(console, options)
        if self.caption:
            yield Text(_text(self.caption), style="dim")

    def _body(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        texts = [
            [_text(column.header) if self.show_header else "", *map(_text, column.cells)] for column in self.columns
        ]
        natural = [max(map(_width, cells)) for cells in texts]
        wide = Measurement.get(console, options.update(width=100_000), self._of(self.columns)).maximum
        between = wide - sum(natural)
        needed = [_needed(cells, first=i == 0) for i, cells in enumerate(texts)]
        spare = options.max_width - between - sum(needed)
        if wide <= options.max_width:
            yield self._of(self.columns)
        elif spare >= 0:
            yield self._of(self._narrowed(_widths(natural, needed, spare), texts))
        else:
            yield from self._stacked(options.max_width)

    def _of(self, columns: Sequence[Column]) -> Table:
        """A table of rich with these columns and the rows of this one."""
        made = Table(
            box=self.box,
            show_header=self.show_header,
            show_edge=self.show_edge,
            pad_edge=self.pad_edge,
            collapse_padding=self.collapse_padding,
        )
        made.columns = list(columns)
        made.rows = self.rows
        return made

    def _narrowed(self, widths: Sequence[int], texts: Sequence[Sequence[str]]) -> list[Column]:
        """The columns with these widths, their cells broken into lines."""
        columns = []
        for i, (column, width, cells) in enumerate(zip(self.columns, widths, texts, strict=True)):
            header, *broken = (Text(_broken(cell, width, hyphens=i == 0)) for cell in cells)
            columns.append(replace(column, header=header, _cells=broken, width=width))
        return columns

    def _stacked(self, room: int) -> Iterator[Text]:
        headings = [_text(column.header) for column in self.columns]
        rows = zip(*(map(_text, column.cells) for column in self.columns), strict=True)
        for row, (first, *others) in zip(self.rows, rows, strict=True):
            said = [
                f"{heading}: {' '.join(cell.split())}" if heading else " ".join(cell.split())
                for heading, cell in zip(headings[1:], others, strict=True)
                if cell.strip()
            ]
            yield Text(first, style=row.style or "bold", overflow="fold")
            yield Text("\n".join(_packed(said, room)), style=row.style or "", overflow="fold")


def _text(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)


def _width(text: str) -> int:
    return max(map(cell_len, text.split("\n")))


def _needed(cells: Sequence[str], *, first: bool) -> int:
    """The least width of a column: of its longest word or interval, or of a short column as a whole."""
    parts = [part for cell in cells for part in _joined(cell, hyphens=first).split()]
    widest = max(map(_width, cells))
    return max(min(widest, _FIRST if first else _NARROWEST), max(map(cell_len, parts), default=0))


def _joined(cell: str, *, hyphens: bool) -> str:
    """The text with a space wherever it may be broken, and none inside an interval."""
    whole = re.sub(r"\[[^\][]*\]", lambda found: found[0].replace(" ", "_"), cell)
    return whole.replace("-", "- ") if hyphens else whole


def _broken(cell: str, width: int, *, hyphens: bool) -> str:
    """The text in lines of at most this width."""
    kept = re.sub(r"\[[^\][]*\]", lambda found: found[0].replace(" ", "\0"), cell.lstrip(" "))
    lines = [line for part in kept.split("\n") for line in textwrap.wrap(part, width, break_on_hyphens=hyphens) or [""]]
    indent = " " * (len(cell) - len(cell.lstrip(" ")))
    return indent + "\n".join(lines).replace("\0", " ")


def _widths(natural: Sequence[int], needed: Sequence[int], spare: int) -> list[int]:
    """Divide the spare characters among the columns that are narrower than they would like to be."""
    widths = list(needed)
    for _ in range(spare):
        lacking = [i for i, width in enumerate(widths) if width < natural[i]]
        if not lacking:
            break
        # The column that would need the most lines gets the next character.
        widths[max(lacking, key=lambda i: natural[i] / widths[i])] += 1
    return widths


def _packed(parts: Sequence[str], room: int) -> list[str]:
    """The parts in lines of at most this width, as many in a line as it takes; a part that is longer is broken."""
    lines: list[str] = []
    width = max(room - 2, 8)
    for part in parts:
        if lines and len(lines[-1]) + 3 + len(part) <= width:
            lines[-1] += f" · {part}"
        else:
            lines += textwrap.wrap(part, width, subsequent_indent="  ", break_on_hyphens=False)
    return [f"  {line}" for line in lines]

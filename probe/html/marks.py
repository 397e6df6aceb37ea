"""Colours of behaviours, and one table."""

from collections.abc import Iterable, Sequence
from html import escape

# Each has a contrast of at least 3 to white, to near black and to white text on it. Any two of the first ten differ by
# at least 19 (CIE76) under simulated protanopia, deuteranopia and tritanopia (Machado 2009), and by at least 28 in
# normal sight. Any two of all twenty differ by only 10, so a colour is always shown with the behaviour's number.
COLOURS = (
    *("#e17500", "#2d5ad8", "#a287bd", "#bd2d12", "#486c48", "#cf7590", "#8748ab", "#ab367e", "#0099ea", "#ab8751"),
    *("#6c996c", "#6c7524", "#8775fc", "#cf5ad8", "#ea3fab", "#247590", "#bd3648", "#a2636c", "#129987", "#f3483f"),
)


def behaviour_colour(behaviour: int) -> str:
    """The colour of a behaviour in every figure; there are twenty colours, so the twenty-first repeats the first.

    >>> behaviour_colour(1), behaviour_colour(21)
    ('#2d5ad8', '#2d5ad8')
    """
    return COLOURS[behaviour % len(COLOURS)]


def html_table(head: Sequence[object], rows: Iterable[Sequence[object]], caption: str | None = None) -> str:
    """An HTML table of plain values, all of them escaped.

    Args:
        head: the column headings; empty for a table without a heading row.
        rows: the cells of each row. None is an empty cell, and a line end in a text is a line break.
        caption: text above the table.

    >>> html_table(["a", "b"], [[1, "<i>"], [None, "x\\ny"]])
    '<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>&lt;i&gt;</td></tr><tr><td></td><td>x<br>y</td></tr></table>'
    """
    above = "" if caption is None else f"<caption>{_cell(caption)}</caption>"
    return f"<table>{above}{_row('th', head)}{''.join(_row('td', row) for row in rows)}</table>"


def _row(tag: str, cells: Sequence[object]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_cell(cell)}</{tag}>' for cell in cells)}</tr>" if cells else ""


def _cell(value: object) -> str:
    return "" if value is None else escape(str(value)).replace("\n", "<br>")

"""Fills the templates of pages and turns figures into markup."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.html import asset, html_table, reader_script, reader_style
from probe.reports.html.numbers import interval, number, p_value, percent, plural

if TYPE_CHECKING:
    from markupsafe import Markup
    from plotly.graph_objects import Figure

_REPORTS = Path(__file__).parents[1]
_SHARED = ("html/page.css", "html/shared.js")


def fill(template: str, script: str | None, **given: Any) -> str:
    """Fill a template; the page contains its style, scripts and the plotting library, and needs no other file.

    Args:
        template: path of the template below ``probe/reports``.
        script: path of the page's own script, which follows ``html/shared.js``; None if it has none.
        given: variables of the template. Everything is escaped except what is part of the package or made by plotly.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(_REPORTS), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "percent": percent, "interval": interval, "number": number, "p_value": p_value, "plural": plural,
    }  # fmt: skip
    style, *scripts = (asset(__file__, f"../{name}") for name in (*_SHARED, script) if name is not None)
    style, scripts = style + reader_style(), [reader_script(), *scripts]
    return environment.get_template(template).render(
        **given, number=number, plotly=Markup(get_plotlyjs()), style=Markup(style), script=Markup("\n".join(scripts))
    )


def numbers_behind(head: Sequence[object], rows: Iterable[Sequence[object]]) -> "Markup":
    """Write the numbers of a picture as a folded table, to stand below it.

    Args:
        head: the column headings.
        rows: the cells of each row.
    """
    from markupsafe import Markup

    table = html_table(head, rows)
    return Markup(
        '<details><summary>The numbers as a table</summary><div class="scroll" tabindex="0" role="region" '
        f'aria-label="Numbers">{table}</div></details>'
    )


def plain_page(title: str, body: str) -> str:
    """Write a page around a view that brings its own style and script.

    Args:
        title: the title, as plain text.
        body: the view, as HTML.
    """
    style = asset(__file__, "page.css")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><style>{style}</style></head>'
        f"<body><main>{body}</main></body></html>"
    )


def whole(keys: Iterable[str], data: Mapping[str, Any] | None) -> dict[str, Any]:
    """Copy a dictionary, with None for each of the keys that it lacks."""
    return dict.fromkeys(keys) | dict(data or {})


def markup(figure: "Figure", name: str) -> "Markup":
    """Write a figure as HTML with the id ``figure-NAME``, without the plotting library."""
    from markupsafe import Markup

    config = {"displayModeBar": False, "responsive": True}
    return Markup(figure.to_html(full_html=False, include_plotlyjs=False, config=config, div_id=f"figure-{name}"))

"""What all pages are made with: the template's environment, its scripts and styles, and figures as markup."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.reports.html.numbers import interval, number, percent

if TYPE_CHECKING:
    from markupsafe import Markup
    from plotly.graph_objects import Figure

_REPORTS = Path(__file__).parents[1]
_SHARED = ("html/page.css", "html/shared.js")


def fill(template: str, script: str | None, **given: Any) -> str:
    """A page as text: it stands alone, with style, scripts and the plotting library in it.

    Args:
        template: a template's path below ``probe/reports``.
        script: the path of its script, which comes after ``html/shared.js``; None if it needs no other.
        given: what the template asks for. Everything is escaped but what is part of the package or made by plotly.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(_REPORTS), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"percent": percent, "interval": interval, "number": number}
    style, *scripts = ((_REPORTS / name).read_text(encoding="utf-8") for name in (*_SHARED, script) if name is not None)
    return environment.get_template(template).render(
        **given, plotly=Markup(get_plotlyjs()), style=Markup(style), script=Markup("\n".join(scripts))
    )


def whole(keys: Iterable[str], data: Mapping[str, Any] | None) -> dict[str, Any]:
    """The data, with None for each key that they do not have."""
    return dict.fromkeys(keys) | dict(data or {})


def markup(figure: "Figure", name: str) -> "Markup":
    """A figure as part of a page, under the id ``figure-NAME``."""
    from markupsafe import Markup

    config = {"displayModeBar": False, "responsive": True}
    return Markup(figure.to_html(full_html=False, include_plotlyjs=False, config=config, div_id=f"figure-{name}"))

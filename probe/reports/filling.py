"""What all pages are made with: the template's environment, its scripts and styles, and figures as markup."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.reports.numbers import interval, number, percent

if TYPE_CHECKING:
    from markupsafe import Markup
    from plotly.graph_objects import Figure

_HERE = Path(__file__).parent


def fill(template: str, script: str | None, **given: Any) -> str:
    """A page as text: it stands alone, with style, scripts and the plotting library in it.

    Args:
        template: the name of a template of this folder.
        script: the name of its script, which comes after ``shared.js``; None if that is all.
        given: what the template asks for. Everything is escaped but what is part of the package or made by plotly.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"percent": percent, "interval": interval, "number": number}
    style, *scripts = (
        (_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "shared.js", script) if name is not None
    )
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

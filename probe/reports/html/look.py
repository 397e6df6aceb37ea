"""The look that all figures share, and the marks that they are made of."""

from collections.abc import Sequence
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from probe.html import behaviour_colour

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Each has a contrast of at least 3 on white and on near black; blue and orange differ in every common colour blindness.
BLUE, ORANGE, GREY = "#2f7fc1", "#c8641e", "#7d8590"
FAINT = "rgba(128,128,128,0.22)"
RISING = [[0, "rgba(47,127,193,0.03)"], [1, BLUE]]
"""Colours from nothing to much."""
DIVERGING = [[0, ORANGE], [0.5, "rgba(128,128,128,0.04)"], [1, BLUE]]
"""Colours from negative over zero to positive."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon", "triangle-down", "pentagon")
NAME, TEXT = 30, 160
"""Characters of a name beside an axis, and of a sentence in a hover label."""


def styled(figure: "Figure", title: str, height: int, legend: int | None = None) -> "Figure":
    """Give a figure the look of all figures: transparent for light and dark pages, and without dragging.

    Args:
        figure: changed in place and returned.
        title: shown as it is written.
        height: in pixels, with room for a legend of one or two lines.
        legend: distance of the legend below the plot, in pixels; None for no legend.
    """
    axis = {
        "gridcolor": FAINT,
        "zerolinecolor": FAINT,
        "fixedrange": True,
        "automargin": True,
        "ticks": "",
        "ticklabelstandoff": 6,
    }
    figure.update_xaxes(axis)
    figure.update_yaxes(axis)
    return figure.update_layout(
        title={
            "text": f"<b>{plain(title)}</b>",
            "font": {"size": 14},
            "x": 0,
            "xref": "container",
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 4},
        },
        height=height,
        margin={"l": 8, "r": 12, "t": 58, "b": 8},
        showlegend=legend is not None,
        legend={
            "orientation": "h",
            "x": 0,
            "y": legend and -legend / (height - 120),
            "yanchor": "top",
            "itemclick": False,
        },
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        dragmode=False,
        hoverlabel={"align": "left"},
        font={"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13, "color": "#6b7280"},
    )


def heatmap(z: Any, *, gap: int = 1, text: Any = None, written: bool = True, **given: Any) -> "Figure":
    """Make a map of values without a colour bar.

    Args:
        z: the values, one row after the other; None leaves a cell empty.
        gap: pixels between cells.
        text: a text for each cell, for hover labels too.
        written: whether the texts are written into the cells.
        given: everything else that ``plotly.graph_objects.Heatmap`` takes.
    """
    from plotly.graph_objects import Figure, Heatmap

    shape: dict[str, Any] = {"showscale": False, "xgap": gap, "ygap": gap, "text": text}
    shape["texttemplate"] = "%{text}" if text is not None and written else None
    return Figure(Heatmap(z=z, **(shape | given)))


def nothing(said: str) -> "Figure":
    """Make a figure that only says why it is empty."""
    from plotly.graph_objects import Figure

    figure = Figure()
    figure.add_annotation(x=0.5, y=0.5, xref="paper", yref="paper", text=said, showarrow=False, font={"size": 15})
    return styled(figure, "", 120).update_layout(xaxis_visible=False, yaxis_visible=False)


def key(figure: "Figure", name: str, colour: str, symbol: str, size: int = 9) -> None:
    """Add an entry to the legend that belongs to no trace of its own."""
    from plotly.graph_objects import Scatter

    marker = {"color": colour, "symbol": symbol, "size": size, "line": {"color": colour, "width": 2}}
    figure.add_trace(
        Scatter(x=[None], y=[None], mode="markers", name=short(name, NAME), marker=marker, hoverinfo="skip")
    )


def dot(
    figure: "Figure",
    place: float,
    value: float | None,
    ci: Sequence[float] | None,
    colour: str,
    symbol: str,
    note: str,
    cell: tuple[int, int] | None = None,
) -> None:
    """Add a dot with its interval in the row ``place``; nothing without a value.

    Args:
        cell: row and column of the subplot, 1-based; None if there are none.
    """
    from plotly.graph_objects import Scatter

    if value is None:
        return
    row, column = cell or (None, None)
    low, high = ci or (value, value)
    marker = {"color": colour, "symbol": symbol, "size": 11, "line": {"color": colour, "width": 2}}
    shared: dict[str, Any] = {"showlegend": False, "cliponaxis": False}
    figure.add_trace(
        Scatter(
            x=[low, high],
            y=[place, place],
            mode="lines",
            line={"color": colour, "width": 3},
            hoverinfo="skip",
            **shared,
        ),
        row,
        column,
    )
    figure.add_trace(
        Scatter(x=[value], y=[place], mode="markers", marker=marker, hovertext=note, hoverinfo="text", **shared),
        row,
        column,
    )


def rows_of(figure: "Figure", labels: Sequence[str]) -> None:
    """Label the rows, the first on top."""
    figure.update_yaxes(tickvals=list(range(len(labels))), ticktext=list(labels), zeroline=False)
    figure.update_yaxes(range=[max(len(labels), 2) - 0.5, -0.6])


def label(behaviour: int, name: str) -> str:
    """Write a behaviour beside an axis: its colour, number and name."""
    return f'<span style="color:{behaviour_colour(behaviour)}">■</span> <b>{behaviour}</b> {short(name, NAME)}'


def heading(behaviour: int, names: Sequence[str]) -> str:
    """Write a behaviour on top of a hover label."""
    return f"<b>{behaviour} {short(names[behaviour], NAME)}</b>"


def mark(correct: bool | None) -> str:
    """Write a grade as one character."""
    return "–" if correct is None else "✓" if correct else "✗"


def plain(text: object) -> str:
    """Write a text so that plotly shows it as it is: plotly reads tags, a few entities, and ``%{...}`` in templates.

    It knows no entity for quotes, which need none.

    >>> plain('<b> & "%{x}"')
    '&lt;b&gt; &amp; "%&#123;x}"'
    """
    return escape(str(text), quote=False).replace("%{", "%&#123;")


def short(text: object, most: int) -> str:
    """Write a text in one line, cut to ``most`` characters and escaped."""
    line = " ".join(str(text).split())
    return plain(line if len(line) <= most else f"{line[: most - 1]}…")


def wrapped(text: object, width: int = 44) -> str:
    """Write a text in lines for a hover label, cut and escaped."""
    return "<br>".join(plain(line) for line in wrap(" ".join(str(text).split())[:TEXT], width))

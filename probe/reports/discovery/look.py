"""The look that the figures of a discovery share, and the marks that they are made of."""

from collections.abc import Sequence
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from probe.html import behaviour_colour

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

#: Has a contrast of at least 3 on white and on near black.
GREY = "#7d8590"
NAME, TEXT = 30, 160
"""Characters of a name beside an axis, and of a sentence in a hover label."""
FAINT = "rgba(128,128,128,0.22)"


def styled(figure: "Figure", title: str, height: int, legend: int | None = None) -> "Figure":
    """The look of all figures: transparent, so that light and dark pages shine through, and nothing to drag.

    Args:
        figure: what is given its look.
        title: its title.
        height: its height, in pixels, at which its legend takes one or two lines.
        legend: how far below the plot the legend begins, in pixels; None for none.
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
            "text": f"<b>{title}</b>",
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


def nothing(said: str) -> "Figure":
    from plotly.graph_objects import Figure

    figure = Figure()
    figure.add_annotation(x=0.5, y=0.5, xref="paper", yref="paper", text=said, showarrow=False, font={"size": 15})
    return styled(figure, "", 120).update_layout(xaxis_visible=False, yaxis_visible=False)


def key(figure: "Figure", name: str, colour: str, symbol: str, size: int = 9) -> None:
    """An entry of the legend that stands for no trace of its own."""
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
    """A dot with its interval in the row ``place``, in a cell of subplots if there are any; nothing without a value."""
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
    """One row a label, the first on top."""
    figure.update_yaxes(tickvals=list(range(len(labels))), ticktext=list(labels), zeroline=False)
    figure.update_yaxes(range=[max(len(labels), 2) - 0.5, -0.6])


def label(behaviour: int, name: str) -> str:
    return f'<span style="color:{behaviour_colour(behaviour)}">■</span> <b>{behaviour}</b> {short(name, NAME)}'


def heading(behaviour: int, names: Sequence[str]) -> str:
    return f"<b>{behaviour} {short(names[behaviour], NAME)}</b>"


def mark(correct: bool | None) -> str:
    return "–" if correct is None else "✓" if correct else "✗"


def short(text: object, most: int) -> str:
    """A text in one line and cut, as markup that shows it."""
    line = " ".join(str(text).split())
    return escape(line if len(line) <= most else f"{line[: most - 1]}…")


def wrapped(text: object, width: int = 44) -> str:
    return "<br>".join(escape(line) for line in wrap(" ".join(str(text).split())[:TEXT], width))

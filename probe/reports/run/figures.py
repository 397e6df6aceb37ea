"""Figures of a run, for Jupyter and for the page: accuracy and gap recovered of every arm, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probe.reports.html.look import BLUE, GREY, ORANGE, plain, rows_of, styled
from probe.reports.html.numbers import interval, percent
from probe.reports.run.arms import MEANING, gap_of, in_order, no_gap, seeds_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_MAIN = ("base", "thinking", "hybrid")
_ROW = 33
"""Height of a row, in pixels."""


@dataclass(frozen=True)
class _Row:
    label: str
    value: float
    interval: tuple[float, float] | None
    colour: str
    filled: bool
    note: str = ""


def arms_figure(results: Mapping[str, Any]) -> "Figure":
    """Draw the accuracy of every arm with its interval, and the base and the thinking model as reference lines.

    Args:
        results: the contents of ``results.json``.
    """
    arms = results.get("arms") or {}
    rows = [
        _Row(name, arm["accuracy"], _pair(arm.get("ci")), _colour(name), name in _MAIN, f"{arm.get('n', '?')} problems")
        for name in in_order(arms)
        if (arm := arms[name]).get("accuracy") is not None
    ]
    references = [(row.label, row.value, row.colour) for row in rows if row.label in ("base", "thinking")]
    return _dots(rows, references, "Correct answers", "no arm was run")


def gap_figure(results: Mapping[str, Any]) -> "Figure":
    """Draw the gap recovered by every arm with its interval, and by the hybrid with each seed of its vectors.

    0% is the base model and 100% the thinking model; values are not clamped. Without a gap, the figure says so.

    Args:
        results: the contents of ``results.json``.
    """
    rows = []
    for name in in_order(results.get("gap_recovered") or {}):
        value, low_high = gap_of(results, name)
        if name in ("base", "thinking") or value is None:
            continue
        rows.append(_Row(name, value, low_high, _colour(name), name in _MAIN))
        if name == "hybrid":
            rows += [
                _Row(f"seed {seed['seed']}", seed["gap"], seed["ci"], BLUE, False, "hybrid, vectors of this seed")
                for seed in seeds_of(results)
                if seed["gap"] is not None
            ]
    references = [("base", 0.0, GREY), ("thinking", 1.0, ORANGE)]
    empty = "no gap: base and thinking differ by less than noise" if no_gap(results) else "not measured"
    return _dots(rows, references if rows else [], "Gap recovered", empty)


def _colour(name: str) -> str:
    return {"thinking": ORANGE, "hybrid": BLUE, "oracle-free": BLUE}.get(name, GREY)


def _pair(low_high: Sequence[float] | None) -> tuple[float, float] | None:
    return (low_high[0], low_high[1]) if low_high else None


def _dots(rows: list[_Row], references: list[tuple[str, float, str]], title: str, empty: str) -> "Figure":
    """Draw one row for each dot with its interval, the first on top; the axis shows at least 0% to 100%."""
    from plotly.graph_objects import Figure, Scatter

    ends = [end for row in rows for end in (*(row.interval or ()), row.value)] + [0.0, 1.0]
    width = max(ends) - min(ends)
    figure = Figure()
    references = sorted(references, key=lambda reference: reference[1])
    apart = references[-1][1] - references[0][1] if references else 0.0
    if apart:
        left = references[0][1]
        figure.add_vrect(left, left + apart, fillcolor="rgba(128,128,128,0.09)", line_width=0, layer="below")
    # The names of lines that are close to each other would overlap, so each is written outwards.
    for (name, value, colour), outwards in zip(references, ("right", "left"), strict=False):
        figure.add_vline(value, line={"color": colour, "width": 1.5, "dash": "dot"}, layer="below")
        figure.add_annotation(
            x=value,
            y=1,
            yref="paper",
            xanchor="center" if apart > 0.25 * width else outwards,
            yanchor="bottom",
            text=name,
            showarrow=False,
            font={"color": colour, "size": 12},
        )
    for place, row in enumerate(rows):
        low, high = row.interval or (row.value, row.value)
        figure.add_trace(
            Scatter(
                x=[low, high],
                y=[place, place],
                mode="lines+text",
                line={"color": row.colour, "width": 3},
                text=["", f"\N{EN SPACE}{percent(row.value)}"],
                textposition="middle right",
                cliponaxis=False,
                hoverinfo="skip",
            )
        )
        figure.add_trace(
            Scatter(
                x=[row.value],
                y=[place],
                mode="markers",
                marker={
                    "size": 12,
                    "color": row.colour,
                    "symbol": "circle" if row.filled else "circle-open",
                    "line": {"color": row.colour, "width": 2},
                },
                cliponaxis=False,
                hovertemplate=_hover(row) + "<extra></extra>",
            )
        )
    rows_of(figure, [plain(row.label) for row in rows])
    styled(figure, title, _ROW * max(len(rows), 2) + 90).update_layout(margin={"r": 44, "t": 56})
    figure.update_xaxes(tickformat=".0%", range=[min(ends) - 0.03 * width, max(ends) + 0.03 * width], zeroline=False)
    figure.update_yaxes(showgrid=False, ticklabelstandoff=8)
    if not rows:
        figure.update_layout(xaxis_visible=False, yaxis_visible=False)
        figure.add_annotation(x=0.5, y=0.5, xref="paper", yref="paper", text=empty, showarrow=False, font={"size": 15})
    return figure


def _hover(row: _Row) -> str:
    return arm_hover(row.label, f"{percent(row.value, 1)} {interval(row.interval)}", plain(row.note))


def arm_hover(arm: str, *lines: str) -> str:
    """Write the hover label of an arm: its name, what it is, and further lines of markup."""
    lines = (f"<b>{plain(arm)}</b>", MEANING.get(arm, ""), *lines)
    return "<br>".join(line for line in lines if line)

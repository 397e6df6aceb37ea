"""Figures of behaviours over sentences and traces, for Jupyter and for the page of a discovery.

They read what ``discover.json`` holds. A behaviour has one colour and one number in all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from probe.html import behaviour_colour
from probe.reports.html.look import (
    BLUE,
    GREY,
    NAME,
    ORANGE,
    SYMBOLS,
    dot,
    heading,
    heatmap,
    key,
    label,
    mark,
    nothing,
    plain,
    rows_of,
    short,
    styled,
    wrapped,
)
from probe.reports.html.numbers import interval, percent, plural

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from probe.taxonomy import Usage

_NONE = "rgba(128,128,128,0.28)"
"""Colour of a sentence without a behaviour."""


def transition_figure(
    counts: Sequence[Sequence[int]] | Int[np.ndarray, "behaviour behaviour"],
    names: Sequence[str],
    start: Sequence[int] | Int[np.ndarray, " behaviour"] | None = None,
    end: Sequence[int] | Int[np.ndarray, " behaviour"] | None = None,
) -> "Figure":
    """Draw how often each behaviour follows each other one; rows sum to 100%, counts are in the hover labels.

    Args:
        counts: how often the row's behaviour was followed by the column's.
        start: number of traces that begin with each behaviour, shown as a further row.
        end: number of traces that end with each behaviour, shown as a further column.
    """
    from plotly.graph_objects import Scatter

    table = np.asarray(counts, dtype=int).reshape(len(names), len(names))
    below, across = [label(i, name) for i, name in enumerate(names)], [f"<b>{i}</b>" for i in range(len(names))]
    whole_below, whole_across = list(names), list(names)
    if end is not None:
        table = np.column_stack([table, np.asarray(end, dtype=int)])
        across, whole_across = [*across, "end"], [*whole_across, "the end"]
    if start is not None:
        first = np.zeros(table.shape[1], dtype=int)
        first[: len(names)] = start
        table, below, whole_below = np.vstack([first, table]), ["start", *below], ["the start", *whole_below]
    if not table.sum():
        return nothing("no sentence follows another")
    totals = table.sum(1, keepdims=True)
    share = np.divide(table, totals, out=np.zeros(table.shape), where=totals > 0)
    hover = [
        [
            f"<b>{short(one, NAME)}</b> → <b>{short(other, NAME)}</b><br>"
            f"{percent(share[i, j], 1)}, {table[i, j]} of {totals[i, 0]}"
            for j, other in enumerate(whole_across)
        ]
        for i, one in enumerate(whole_below)
    ]
    # At most half opaque, so that text in the page's own colour is legible on it, on light and dark pages.
    scale = [[0, "rgba(47,127,193,0)"], [1, "rgba(47,127,193,0.55)"]]
    figure = heatmap(share, zmin=0, zmax=1, colorscale=scale, gap=2, hovertext=hover, hoverinfo="text")
    shown = [(i, j) for i, j in np.argwhere(share >= 0.005).tolist()] if len(names) <= 14 else []
    figure.add_trace(
        Scatter(
            x=[j for _, j in shown],
            y=[i for i, _ in shown],
            text=[percent(share[i, j]) for i, j in shown],
            mode="text",
            textfont={"size": 12},
            hoverinfo="skip",
        )
    )
    figure.update_xaxes(tickvals=list(range(len(across))), ticktext=across, side="top", showgrid=False, zeroline=False)
    figure.update_yaxes(
        tickvals=list(range(len(below))), ticktext=below, autorange="reversed", showgrid=False, zeroline=False
    )
    return styled(figure, "Transitions between behaviours", 34 * len(below) + 90)


_TEXTS = 4000
"""The maximum number of sentences whose texts are in the hover labels; with more, a page would be too large."""


def timeline_figure(traces: Sequence[Mapping[str, Any]], names: Sequence[str]) -> "Figure":
    """Draw traces as rows and sentences as cells in the colour of their behaviour; texts are in the hover labels.

    With more than 4,000 sentences, the hover labels have no texts.

    Args:
        traces: ``traces`` of ``discover.json``, or the result of ``AnnotatedTraces.records``.
    """
    longest = max((len(trace["sentences"]) for trace in traces), default=0)
    if not longest:
        return nothing("no trace has a sentence")
    known = len(names)
    texts = sum(len(trace["sentences"]) for trace in traces) <= _TEXTS
    z: list[list[int | None]] = []
    text: list[list[str]] = []
    hover: list[list[str]] = []
    for trace in traces:
        empty = longest - len(trace["sentences"])
        behaviours = [sentence.get("behaviour") for sentence in trace["sentences"]]
        z.append([known if each is None else each for each in behaviours] + [None] * empty)
        text.append(["" if each is None else str(each) for each in behaviours] + [""] * empty)
        hover.append([_said(sentence, names) for sentence in trace["sentences"] if texts] + [""] * empty)
    colours = [*(behaviour_colour(i) for i in range(known)), _NONE]
    scale = [[(i + side) / len(colours), colour] for i, colour in enumerate(colours) for side in (0, 1)]
    hovers: dict[str, Any] = {"hovertext": hover, "hoverinfo": "text"}
    if not texts:
        hovers = {"hovertemplate": "sentence %{x}: %{text}<extra></extra>"}
    figure = heatmap(
        z,
        x=list(range(1, longest + 1)),
        y=list(range(len(traces))),
        zmin=-0.5,
        zmax=known + 0.5,
        colorscale=scale,
        ygap=3,
        **hovers,
        hoverongaps=False,
        text=text,
        written=longest <= 40,
        textfont={"color": "#fff", "size": 11},
    )
    for i, name in enumerate(names):
        key(figure, f"{i} {name}", behaviour_colour(i), "square", 11)
    if any(known in row for row in z):
        key(figure, "no behaviour", _NONE, "square", 11)
    marks = [f"{mark(trace.get('correct'))} {_tail(trace.get('problem_id'))}" for trace in traces]
    figure.update_xaxes(range=[0.4, longest + 0.6], side="top", showgrid=False, zeroline=False)
    figure.update_yaxes(
        tickvals=list(range(len(traces))), ticktext=marks, autorange="reversed", showgrid=False, zeroline=False
    )
    return styled(figure, "Traces, sentence by sentence", 22 * len(traces) + 150, legend=10)


def usage_figure(usage: "Usage | Mapping[str, Any]", names: Sequence[str]) -> "Figure":
    """Draw the share of each behaviour among the sentences of correct and of incorrect traces, with 95 % intervals.

    Without graded traces, it is the share in all traces.

    Args:
        usage: the result of ``AnnotatedTraces.usage``, or ``usage`` of ``discover.json``.
    """
    from plotly.graph_objects import Figure

    groups: Mapping[str, Any] = usage if isinstance(usage, Mapping) else asdict(usage)
    looks = {"correct": (BLUE, "circle"), "incorrect": (ORANGE, "diamond-open"), "all": (GREY, "circle")}
    graded = [name for name in ("correct", "incorrect") if (groups.get(name) or {}).get("sentences")]
    shown = graded or [name for name in ("all",) if (groups.get(name) or {}).get("sentences")]
    if not shown:
        return nothing("no sentence has a behaviour")
    figure = Figure()
    for which, name in enumerate(shown):
        group, (colour, symbol) = groups[name], looks[name]
        offset = 0.32 * (which - (len(shown) - 1) / 2)
        for i, (share, ci) in enumerate(zip(group["share"], group["ci"], strict=True)):
            note = f"{heading(i, names)}<br>{name}: {percent(share, 1)} {interval(ci)} of sentences"
            dot(figure, i + offset, share, ci, colour, symbol, note)
        key(figure, f"{name} ({plural(group['traces'], 'trace')})", colour, symbol, 11)
    ends = [end for name in shown for ci in groups[name]["ci"] for end in ci or ()]
    most = max([*ends, *(share for name in shown for share in groups[name]["share"])])
    figure.update_xaxes(tickformat=".0%", range=[0, 1.04 * most])
    rows_of(figure, [label(i, name) for i, name in enumerate(names)])
    return styled(figure, "Share of sentences", 38 * max(len(names), 2) + 120, legend=30)


def map_figure(found: Mapping[str, Any], names: Sequence[str]) -> "Figure":
    """Draw sentences in two dimensions in the colours of their behaviours, with a number at each behaviour's median.

    Args:
        found: ``map`` of ``discover.json``, or the result of ``BehaviourMap.record``.
    """
    from plotly.graph_objects import Figure, Scatter

    points = found.get("points") or []
    if not points:
        return nothing("no sentence is on the map")
    figure = Figure()
    for i, name in enumerate(names):
        own = [point for point in points if point[2] == i]
        if not own:
            continue
        x, y = [point[0] for point in own], [point[1] for point in own]
        figure.add_trace(
            Scatter(
                x=x,
                y=y,
                mode="markers",
                name=short(f"{i} {name}", NAME),
                marker={"color": behaviour_colour(i), "symbol": SYMBOLS[i % len(SYMBOLS)], "size": 6, "opacity": 0.8},
                hovertext=[f"{heading(i, names)}<br>{wrapped(point[3])}" for point in own],
                hoverinfo="text",
            )
        )
        figure.add_annotation(
            x=float(np.median(x)),
            y=float(np.median(y)),
            text=f"<b>{i}</b>",
            showarrow=False,
            font={"color": "#fff", "size": 12},
            bgcolor=behaviour_colour(i),
            borderpad=3,
            bordercolor="#fff",
        )
    explained = found.get("explained")
    said = "" if explained is None else f" ({percent(explained)} of the variance)"
    method = {"pca": "Two principal components", "umap": "UMAP"}.get(str(found.get("method")), "Two dimensions")
    figure.update_xaxes(showticklabels=False, zeroline=False)
    figure.update_yaxes(showticklabels=False, zeroline=False, scaleanchor="x")
    return styled(figure, f"{method}{said}", 520, legend=8).update_layout(legend_itemclick="toggle")


def _tail(problem_id: object, most: int = 22) -> str:
    """Write the end of a problem's name, which distinguishes the problems of one set."""
    text = str(problem_id)
    return plain(text if len(text) <= most else f"…{text[1 - most :]}")


def _said(sentence: Mapping[str, Any], names: Sequence[str]) -> str:
    behaviour, kind = sentence.get("behaviour"), sentence.get("type")
    head = "<b>no behaviour</b>" if behaviour is None else heading(behaviour, names)
    return f"{head}{'' if kind is None else f' · true type {plain(str(kind))}'}<br>{wrapped(sentence.get('text'))}"

"""Figures of a discovery, for Jupyter and for its page: the grid, behaviours over traces, the map, falsification.

They read what ``discover.json`` holds. A behaviour has one colour and one number in all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from probe.html import behaviour_colour
from probe.reports.discovery.look import (
    GREY,
    NAME,
    dot,
    heading,
    key,
    label,
    mark,
    nothing,
    rows_of,
    short,
    styled,
    wrapped,
)
from probe.reports.html.numbers import interval, number, percent
from probe.taxonomy import Usage

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

#: The scores of a candidate, and what they are called.
METRICS = {
    "score": "score",
    "variance_explained": "variance explained",
    "stability": "stability",
    "agreement": "seed agreement",
    "silhouette": "silhouette",
    "decodability": "decodability",
    "centroid_f1": "nearest-centroid F1",
    "text_f1": "F1 by words alone",
    "ami": "true types (AMI)",
}
#: The tests of a falsification card: what was done, what a state does then, and where value and control are.
TESTS = {
    "injection": ("cue put in", "a state stays silent", "rate", "control"),
    "removal": ("cue taken out", "a state still fires", "rate", "control"),
    "paraphrase": ("paraphrased", "a state still fires", "rate", "control"),
    "stability": ("written again", "a state comes back", "mean", "expected"),
    "content": ("content out", "a state still fires", "rate", "control"),
}
# Each has a contrast of at least 3 on white and on near black.
_BLUE, _ORANGE = "#2f7fc1", "#c8641e"
_NONE = "rgba(128,128,128,0.28)"
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon", "triangle-down", "pentagon")


def grid_figure(
    grid: Sequence[Mapping[str, Any]],
    metrics: Sequence[str] = ("score", "variance_explained", "stability", "agreement"),
) -> "Figure":
    """Every candidate: a column a site, a row a score, a line a family over sizes; the chosen one is ringed.

    Filled candidates are as stable as the rule asks. Rows that nothing was measured for are left out.

    Args:
        grid: ``grid`` of ``discover.json``.
        metrics: the rows, among :data:`METRICS`.
    """
    from plotly.subplots import make_subplots

    rows = [metric for metric in metrics if any(each.get(metric) is not None for each in grid)]
    if not rows:
        return nothing("no candidate was scored")
    sites = list(dict.fromkeys(each["site"] for each in grid))
    families = list(dict.fromkeys(each["family"] for each in grid))
    sizes = sorted({each["size"] for each in grid})
    figure = make_subplots(
        len(rows),
        len(sites),
        shared_xaxes=True,
        shared_yaxes=True,
        column_titles=[escape(site) for site in sites],
        horizontal_spacing=0.02,
        vertical_spacing=0.045,
    )
    for row, metric in enumerate(rows, 1):
        scored = sorted((each for each in grid if each.get(metric) is not None), key=lambda each: each["size"])
        for column, site in enumerate(sites, 1):
            for i, family in enumerate(families):
                own = [each for each in scored if (each["site"], each["family"]) == (site, family)]
                _add_line(figure, row, column, i, [sizes.index(each["size"]) for each in own], own, metric)
        values = [each[metric] for each in scored]
        room = 0.12 * (max(values) - min(values)) or 0.05
        figure.update_yaxes(range=[min(values) - room, max(values) + room], row=row)
        figure.update_yaxes(title={"text": METRICS[metric], "font": {"size": 12}}, row=row, col=1)
    for i, family in enumerate(families):
        key(figure, family, behaviour_colour(i), _SYMBOLS[i % len(_SYMBOLS)])
    key(figure, "stable enough", GREY, "circle")
    key(figure, "not", GREY, "circle-open")
    key(figure, "chosen", GREY, "circle-open", 15)
    ticks = {"tickvals": list(range(len(sizes))), "ticktext": [str(size) for size in sizes]}
    figure.update_xaxes(range=[-0.5, len(sizes) - 0.5], **ticks)
    figure.update_xaxes(title={"text": "behaviours", "font": {"size": 12}}, row=len(rows))
    return styled(figure, "Every candidate", 160 * len(rows) + 150, legend=56)


def transition_figure(
    counts: Sequence[Sequence[int]] | Int[np.ndarray, "behaviour behaviour"],
    names: Sequence[str],
    start: Sequence[int] | Int[np.ndarray, " behaviour"] | None = None,
    end: Sequence[int] | Int[np.ndarray, " behaviour"] | None = None,
) -> "Figure":
    """Which behaviour follows on which: rows are normalised to 100%, counts are in the hover labels.

    Args:
        counts: how often the row's behaviour was followed by the column's.
        names: of the behaviours.
        start: how many traces begin with each behaviour, for one more row.
        end: how many end with it, for one more column.
    """
    from plotly.graph_objects import Figure, Heatmap, Scatter

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
        return nothing("no sentence follows on another")
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
    # Up to half opaque: what is written on it can be read in the page's own ink, on light and on dark.
    scale = [[0, "rgba(47,127,193,0)"], [1, "rgba(47,127,193,0.55)"]]
    figure = Figure(
        Heatmap(
            z=share,
            zmin=0,
            zmax=1,
            colorscale=scale,
            showscale=False,
            xgap=2,
            ygap=2,
            hovertext=hover,
            hoverinfo="text",
        )
    )
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
    return styled(figure, "What follows on what", 34 * len(below) + 90)


def timeline_figure(traces: Sequence[Mapping[str, Any]], names: Sequence[str]) -> "Figure":
    """One row a trace, one cell a sentence, in the colour of its behaviour; its text is in the hover label.

    Args:
        traces: ``traces`` of ``discover.json``; ``AnnotatedTraces.records`` makes them.
        names: of the behaviours.
    """
    from plotly.graph_objects import Figure, Heatmap

    longest = max((len(trace["sentences"]) for trace in traces), default=0)
    if not longest:
        return nothing("no trace has a sentence")
    known = len(names)
    z: list[list[int | None]] = []
    text: list[list[str]] = []
    hover: list[list[str]] = []
    for trace in traces:
        empty = longest - len(trace["sentences"])
        behaviours = [sentence.get("behaviour") for sentence in trace["sentences"]]
        z.append([known if each is None else each for each in behaviours] + [None] * empty)
        text.append(["" if each is None else str(each) for each in behaviours] + [""] * empty)
        hover.append([_said(sentence, names) for sentence in trace["sentences"]] + [""] * empty)
    colours = [*(behaviour_colour(i) for i in range(known)), _NONE]
    scale = [[(i + side) / len(colours), colour] for i, colour in enumerate(colours) for side in (0, 1)]
    few = longest <= 40
    figure = Figure(
        Heatmap(
            x=list(range(1, longest + 1)),
            y=list(range(len(traces))),
            z=z,
            zmin=-0.5,
            zmax=known + 0.5,
            colorscale=scale,
            showscale=False,
            xgap=1,
            ygap=3,
            hovertext=hover,
            hoverinfo="text",
            hoverongaps=False,
            text=text,
            texttemplate="%{text}" if few else None,
            textfont={"color": "#fff", "size": 11},
        )
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


def usage_figure(usage: Usage | Mapping[str, Any], names: Sequence[str]) -> "Figure":
    """The share of sentences that each behaviour takes in correct and in incorrect traces, with 95 % intervals.

    Without graded traces it is the share in all traces.

    Args:
        usage: what ``AnnotatedTraces.usage`` gives, or ``usage`` of ``discover.json``.
        names: of the behaviours.
    """
    from plotly.graph_objects import Figure

    groups: Mapping[str, Any] = asdict(usage) if isinstance(usage, Usage) else usage
    looks = {"correct": (_BLUE, "circle"), "incorrect": (_ORANGE, "diamond-open"), "all": (GREY, "circle")}
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
        key(figure, f"{name} ({group['traces']} traces)", colour, symbol, 11)
    ends = [end for name in shown for ci in groups[name]["ci"] for end in ci or ()]
    most = max([*ends, *(share for name in shown for share in groups[name]["share"])])
    figure.update_xaxes(tickformat=".0%", range=[0, 1.04 * most])
    rows_of(figure, [label(i, name) for i, name in enumerate(names)])
    return styled(figure, "Share of sentences", 38 * max(len(names), 2) + 120, legend=30)


def map_figure(found: Mapping[str, Any], names: Sequence[str]) -> "Figure":
    """Sentences in two dimensions, in the colours of their behaviours; its number stands amid each behaviour.

    Args:
        found: ``map`` of ``discover.json``; ``BehaviourMap.record`` makes it.
        names: of the behaviours.
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
                marker={"color": behaviour_colour(i), "symbol": _SYMBOLS[i % len(_SYMBOLS)], "size": 6, "opacity": 0.8},
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


def cards_figure(behaviours: Sequence[Mapping[str, Any]]) -> "Figure":
    """How each behaviour stood its falsification: a column a test, dots with intervals, bars for the controls.

    Args:
        behaviours: ``behaviours`` of ``discover.json``; those without a card are left out.
    """
    from plotly.subplots import make_subplots

    rows = [each for each in behaviours if each.get("card")]
    tests = [name for name in TESTS if any(each["card"].get(name) for each in rows)]
    if not tests:
        return nothing("no behaviour was put to the test")
    titles = [f"<b>{TESTS[name][0]}</b><br>{TESTS[name][1]}" for name in tests]
    figure = make_subplots(1, len(tests), shared_yaxes=True, column_titles=titles, horizontal_spacing=0.045)
    for column, name in enumerate(tests, 1):
        what, _, value, control = TESTS[name]
        for place, each in enumerate(rows):
            test = each["card"].get(name) or {}
            number_of = each.get("behaviour", place)
            against = test.get(control)
            note = (
                f"<b>{number_of}</b> {short(_name(each), NAME)}<br>{what}: {percent(test.get(value), 1)} "
                f"{interval(test.get('ci'))}, {test.get('n', '?')} sentences"
                + ("" if against is None else f"<br>control: {percent(against, 1)}")
            )
            if against is not None:
                dot(figure, place, against, None, GREY, "line-ns", note, cell=(1, column))
            colour = behaviour_colour(number_of)
            dot(figure, place, test.get(value), test.get("ci"), colour, "circle", note, cell=(1, column))
    for place, each in enumerate(rows):
        figure.add_annotation(
            x=1.01,
            xref="paper",
            xanchor="left",
            y=place,
            yref="y",
            text=f"<b>{escape(str(each['card'].get('verdict') or ''))}</b>",
            showarrow=False,
        )
    figure.update_annotations(font_size=12)
    figure.update_xaxes(tickformat=".0%", range=[-0.06, 1.06], tickvals=[0, 0.5, 1], ticktext=["0", "50%", "100"])
    rows_of(figure, [label(each.get("behaviour", place), _name(each)) for place, each in enumerate(rows)])
    key(figure, "control", GREY, "line-ns", 13)
    figure = styled(figure, "Falsification", 34 * max(len(rows), 2) + 150, legend=34)
    return figure.update_layout(margin={"r": 92, "t": 90})


def _tail(problem_id: object, most: int = 22) -> str:
    """The end of a name, by which problems of one set are told apart."""
    text = str(problem_id)
    return escape(text if len(text) <= most else f"…{text[1 - most :]}")


def _name(behaviour: Mapping[str, Any]) -> str:
    return behaviour.get("name") or behaviour.get("label") or "no name"


def _said(sentence: Mapping[str, Any], names: Sequence[str]) -> str:
    behaviour, kind = sentence.get("behaviour"), sentence.get("type")
    head = "<b>no behaviour</b>" if behaviour is None else heading(behaviour, names)
    return f"{head}{'' if kind is None else f' · truly {escape(str(kind))}'}<br>{wrapped(sentence.get('text'))}"


def _add_line(
    figure: "Figure", row: int, column: int, family: int, x: list[int], members: list[Mapping[str, Any]], metric: str
) -> None:
    """One family at one site over sizes; filled where it is stable enough, ringed where the choice fell."""
    from plotly.graph_objects import Scatter

    colour, symbol = behaviour_colour(family), _SYMBOLS[family % len(_SYMBOLS)]
    y = [each[metric] for each in members]
    figure.add_trace(
        Scatter(
            x=x,
            y=y,
            mode="lines+markers",
            showlegend=False,
            line={"color": colour, "width": 1.8},
            marker={
                "symbol": [symbol if each.get("passes") else f"{symbol}-open" for each in members],
                "size": 8,
                "color": colour,
                "line": {"color": colour, "width": 1.8},
            },
            hovertext=[_candidate(each) for each in members],
            hoverinfo="text",
        ),
        row,
        column,
    )
    chosen = [n for n, each in enumerate(members) if each.get("chosen")]
    ring = {"symbol": "circle-open", "size": 19, "color": colour, "line": {"width": 3}}
    if chosen:
        at = {"x": [x[n] for n in chosen], "y": [y[n] for n in chosen]}
        figure.add_trace(Scatter(**at, mode="markers", showlegend=False, hoverinfo="skip", marker=ring), row, column)


def _candidate(each: Mapping[str, Any]) -> str:
    lines = [f"<b>{escape(each['family'])}, {each['size']} behaviours</b> at {escape(each['site'])}"]
    lines += [f"{said}: {number(each[metric])}" for metric, said in METRICS.items() if each.get(metric) is not None]
    return "<br>".join(lines + (["<b>chosen</b>"] if each.get("chosen") else []))

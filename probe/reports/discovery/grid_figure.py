"""The figure of the search: the scores of every candidate taxonomy, and the one that was chosen."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probe.html import behaviour_colour
from probe.reports.html.look import GREY, SYMBOLS, key, nothing, plain, styled
from probe.reports.html.numbers import number

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

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
"""The scores of a candidate, and what the page calls them."""


def grid_figure(
    grid: Sequence[Mapping[str, Any]],
    metrics: Sequence[str] = ("score", "variance_explained", "stability", "agreement"),
) -> "Figure":
    """Draw every candidate: one column for each site, one row for each score, one line over sizes for each family.

    A ring marks the chosen candidate. Filled candidates are as stable as the rule requires. Rows without a measured
    score are left out.

    Args:
        grid: ``grid`` of ``discover.json``.
        metrics: the rows; keys of :data:`METRICS`.
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
        column_titles=[plain(site) for site in sites],
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
        key(figure, family, behaviour_colour(i), SYMBOLS[i % len(SYMBOLS)])
    key(figure, "stable enough", GREY, "circle")
    key(figure, "not stable enough", GREY, "circle-open")
    key(figure, "chosen", GREY, "circle-open", 15)
    ticks = {"tickvals": list(range(len(sizes))), "ticktext": [str(size) for size in sizes]}
    figure.update_xaxes(range=[-0.5, len(sizes) - 0.5], **ticks)
    figure.update_xaxes(title={"text": "behaviours", "font": {"size": 12}}, row=len(rows))
    return styled(figure, "Every candidate", 160 * len(rows) + 150, legend=56)


def _add_line(
    figure: "Figure", row: int, column: int, family: int, x: list[int], members: list[Mapping[str, Any]], metric: str
) -> None:
    """Draw one family at one site over sizes; filled where it is stable enough, with a ring on the chosen one."""
    from plotly.graph_objects import Scatter

    colour, symbol = behaviour_colour(family), SYMBOLS[family % len(SYMBOLS)]
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
    lines = [f"<b>{plain(each['family'])}, {each['size']} behaviours</b> at {plain(each['site'])}"]
    lines += [f"{said}: {number(each[metric])}" for metric, said in METRICS.items() if each.get(metric) is not None]
    return "<br>".join(lines + (["<b>chosen</b>"] if each.get("chosen") else []))

"""Figures of a circuit: its edges, its heads, and the faithfulness of circuits of each size."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from probe.reports.html.look import BLUE, GREY, ORANGE, RISING, heatmap, plain, styled
from probe.reports.html.numbers import number, percent

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from probe.circuits import Circuit

_DRAWN = 60
"""The largest number of edges that are drawn."""
_WIDEST = 6.0


def circuit_figure(circuit: "Circuit", most: int = _DRAWN) -> "Figure":
    """Draw the circuit's strongest edges, from the embedding at the bottom to the logits at the top.

    Without a blue edge the metric falls, without an orange one it rises. Wider edges have larger scores.

    Args:
        most: the largest number of edges.
    """
    from plotly.graph_objects import Figure, Scatter

    graph, figure = circuit.graph, Figure()
    edges = circuit.listed(most)
    largest = max((abs(score) for _, score in edges), default=1.0) or 1.0
    used: set[str] = set()
    for name, score in reversed(edges):
        row, column = graph.edge(name)
        reader = graph.readers[column]
        colour = BLUE if score < 0 else ORANGE
        for target in graph.written_by(reader):
            used |= {graph.writers[row], target}
            ends = [_place(each, graph.n_heads, graph.n_layers) for each in (graph.writers[row], target)]
            (x0, y0), (x1, y1) = ends
            figure.add_trace(
                Scatter(
                    x=[x0, (x0 + x1) / 2, x1],
                    y=[y0, (y0 + y1) / 2, y1],
                    mode="lines",
                    line={"color": colour, "width": max(0.6, _WIDEST * abs(score) / largest), "shape": "spline"},
                    opacity=0.35 + 0.6 * abs(score) / largest,
                    hovertext=f"<b>{plain(name)}</b><br>{number(score, 4)}",
                    hoverinfo="text",
                    showlegend=False,
                )
            )
    places = {name: _place(name, graph.n_heads, graph.n_layers) for name in sorted(used)}
    figure.add_trace(
        Scatter(
            x=[x for x, _ in places.values()],
            y=[y for _, y in places.values()],
            mode="markers+text",
            marker={"size": 36, "color": GREY, "symbol": "square"},
            text=[name.split(".")[-1] if name[0] == "a" else name for name in places],
            textfont={"color": "white", "size": 11},
            hovertext=list(places),
            hoverinfo="text",
            showlegend=False,
        )
    )
    layers = range(graph.n_layers)
    figure.update_yaxes(
        tickvals=[-1, *layers, graph.n_layers],
        ticktext=["embed", *(f"block {i}" for i in layers), "logits"],
        showgrid=False,
    )
    figure.update_xaxes(visible=False)
    title = f"{len(circuit)} of {len(graph)} edges" + (f", the {most} strongest drawn" if len(circuit) > most else "")
    return styled(figure, title, 130 + 110 * (graph.n_layers + 2)).update_yaxes(zeroline=False)


def heads_figure(circuit: "Circuit") -> "Figure":
    """Plot each head's share of the scores of the circuit's edges."""
    share = circuit.heads()
    figure = heatmap(
        share.tolist(),
        x=[f"h{head}" for head in range(share.shape[1])],
        y=[f"block {layer}" for layer in range(share.shape[0])],
        colorscale=RISING,
        zmin=0,
        text=[[percent(float(each)) for each in row] for row in share],
        gap=2,
        hovertemplate="%{y}, %{x}: %{text}<extra></extra>",
    )
    return styled(figure, "Share of the edge scores by the head that writes", 120 + 44 * share.shape[0])


def faithfulness_figure(results: Mapping[str, Any]) -> "Figure":
    """Plot faithfulness against the share of edges that is kept, with the circuit itself.

    Args:
        results: ``results.json`` of ``probe circuits``.
    """
    from plotly.graph_objects import Figure, Scatter

    curve, figure = results["faithfulness"], Figure()
    figure.add_hline(y=1, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.add_trace(
        Scatter(
            x=curve["shares"],
            y=curve["values"],
            mode="lines+markers",
            name="strongest edges",
            line={"color": BLUE, "width": 2},
            marker={"size": 7},
        )
    )
    figure.add_trace(
        Scatter(
            x=[results["edges"] / results["of"]],
            y=[results["kept"]],
            mode="markers",
            name="the circuit",
            marker={"color": ORANGE, "size": 12, "symbol": "diamond"},
        )
    )
    ticks = {"tickvals": curve["shares"], "ticktext": [percent(share, 0) for share in curve["shares"]]}
    figure.update_xaxes(title="share of all edges", type="log", **ticks)
    figure.update_yaxes(title="faithfulness", tickformat=".0%")
    return styled(figure, "Share of the metric that is kept when all other edges are corrupt", 360, legend=70)


def _place(name: str, n_heads: int, n_layers: int) -> tuple[float, float]:
    if name in ("embed", "logits"):
        return n_heads / 2, -1.0 if name == "embed" else float(n_layers)
    block, _, head = name.partition(".")
    layer = int(block[1:])
    return (float(head[1:]), layer - 0.15) if head else (n_heads + 0.5, layer + 0.2)

"""Figures of a circuit: its edges, its heads, and the faithfulness of circuits of each size."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from probe.reports.html.look import BLUE, GREY, ORANGE, RISING, heatmap, styled
from probe.reports.html.numbers import percent

if TYPE_CHECKING:
    from IPython.display import HTML
    from plotly.graph_objects import Figure

    from probe.circuits import Circuit


def circuit_view(circuit: "Circuit") -> "HTML":
    """Draw the circuit's strongest edges, from the embedding at the bottom to the logits at the top.

    Without a blue edge the metric falls, without an orange, dashed one it rises. Wider edges have larger scores. The
    heads of a block fold into one node, a slider chooses how many edges are shown, and the table below lists them.
    """
    from IPython.display import HTML

    return HTML(circuit._repr_html_())


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

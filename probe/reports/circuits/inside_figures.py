"""Figures of the logit lens, direct attribution, activation patching and token traces."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from probe.reports.html.look import BLUE, DIVERGING, ORANGE, RISING, heatmap, short, styled

if TYPE_CHECKING:
    from jaxtyping import Float
    from plotly.graph_objects import Figure
    from torch import Tensor

    from probe.circuits import LensReading, PatchMap
    from probe.diff import TokenTrace

_WORDS = 40
"""The largest number of columns that are all labelled."""


def lens_figure(lens: "LensReading", last: int = 24) -> "Figure":
    """Plot the next token that each block predicts, at the last tokens of a text; darker is more probable.

    Args:
        lens: the result of :func:`~probe.circuits.logit_lens`.
        last: number of tokens that are shown.
    """
    first = max(0, len(lens.tokens) - last)
    layers = len(lens.said)
    sure = lens.log_prob.exp()[:, first:]
    figure = heatmap(
        sure.tolist(),
        x=list(range(first, len(lens.tokens))),
        y=[f"block {i}" for i in lens.layers],
        text=[[short(word, 8) for word in row[first:]] for row in lens.said],
        colorscale=RISING,
        zmin=0,
        zmax=1,
        hovertemplate="%{y}, token %{x}: %{text} (%{z:.0%})<extra></extra>",
    )
    ticks = list(range(first, len(lens.tokens)))
    figure.update_xaxes(
        tickvals=ticks, ticktext=[short(lens.tokens[i], 8) for i in ticks], title="token read", tickangle=0
    )
    return styled(
        figure,
        f"{lens.lens.capitalize()}: the next token predicted after each block",
        130 + max(22, 44 - layers) * layers,
    )


def direct_figure(parts: "Mapping[str, Float[Tensor, ' batch']]", most: int = 16) -> "Figure":
    """Plot what each writer adds directly to the logit difference, averaged over texts.

    Args:
        parts: the result of :func:`~probe.circuits.direct_attribution`.
        most: the largest number of writers that are shown.
    """
    from plotly.graph_objects import Bar, Figure

    means = {name: float(values.mean()) for name, values in parts.items()}
    shown = sorted(means, key=lambda name: -abs(means[name]))[:most]
    figure = Figure(
        Bar(
            x=[means[name] for name in shown],
            y=shown,
            orientation="h",
            marker={"color": [BLUE if means[name] > 0 else ORANGE for name in shown]},
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="logits")
    return styled(figure, "Direct attribution: what each writer adds to the logit difference", 130 + 24 * len(shown))


def patch_figure(found: "PatchMap", tokens: Sequence[str] | None = None) -> "Figure":
    """Plot the share of the metric that each patched state restores, blue above zero and orange below.

    Args:
        found: the result of :func:`~probe.circuits.patch`.
        tokens: the tokens of one text, to label the columns; the last token is the last column.
    """
    layers, places = found.values.shape
    if found.by == "position":
        names = [str(i - places) for i in range(places)]
        if tokens is not None:
            names = [f"{i - places} {short(tokens[len(tokens) - places + i], 10)}" for i in range(places)]
    else:
        names = [f"h{i}" for i in range(places)] if found.by == "head" else ["all tokens"]
    large = max(1.0, float(found.values.abs().max()))
    figure = heatmap(
        found.values.tolist(),
        x=list(range(places)),
        y=[f"block {i}" for i in range(layers)],
        customdata=[names] * layers,
        colorscale=DIVERGING,
        zmin=-large,
        zmax=large,
        text=[[f"{float(each):.2f}" for each in row] for row in found.values] if places <= 16 else None,
        hovertemplate="%{y}, %{customdata}: %{z:.2f}<extra></extra>",
    )
    every = 1 if places <= _WORDS else max(1, places // _WORDS + 1)
    ticks = list(range(places - 1, -1, -every))
    figure.update_xaxes(
        tickvals=ticks, ticktext=[names[i] for i in ticks], tickangle=-60 if found.by == "position" else 0
    )
    said = "left" if found.about.get("noising") else "restored"
    return styled(figure, f"{found.site}: share of the metric that is {said}", 170 + 40 * layers)


def token_trace_figure(trace: "TokenTrace", decay: float = 0.9) -> "Figure":
    """Plot the divergence of two models along a trace, and the thinking model's entropy with its running mean.

    Args:
        trace: the result of :func:`~probe.diff.token_trace`.
        decay: decay of the running mean for each token.
    """
    from plotly.graph_objects import Figure, Scatter

    from probe.diff import running_mean

    places = list(range(len(trace.tokens)))
    words = [short(token, 14) for token in trace.tokens]
    figure = Figure()
    for name, values, colour, width in (
        ("KL(thinking ‖ base)", trace.kl, ORANGE, 1.5),
        ("entropy, thinking", trace.thinking_entropy, "rgba(47,127,193,0.45)", 1.0),
        ("running mean of the entropy", running_mean(trace.thinking_entropy, decay), BLUE, 2.5),
    ):
        figure.add_trace(
            Scatter(
                x=places,
                y=values.tolist(),
                mode="lines",
                name=name,
                line={"color": colour, "width": width},
                text=words,
                hovertemplate="%{text}: %{y:.2f} nats<extra></extra>",
            )
        )
    figure.update_xaxes(title="emitted token")
    figure.update_yaxes(title="nats")
    return styled(figure, "Two models on one trace", 340, legend=60)

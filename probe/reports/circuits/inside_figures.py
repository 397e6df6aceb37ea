"""Figures of lenses, direct attribution, activation patching and token traces."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from probe.reports.html.look import BLUE, DIVERGING, ORANGE, RISING, heatmap, plain, short, styled

if TYPE_CHECKING:
    from jaxtyping import Float
    from plotly.graph_objects import Figure
    from torch import Tensor

    from probe.circuits import ConceptEntry, Foresight, LensReading, PatchMap
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


def foresight_figure(found: "Foresight") -> "Figure":
    """Plot how well both lenses read tokens that will be written; cells above the null have a star.

    Args:
        found: the result of :func:`~probe.circuits.foresight`.
    """
    titles = [f"{lens}, {n}" for lens in ("logit lens", "Jacobian lens") for n in _before(found.advantage.shape[2])]
    values = found.advantage.movedim(1, 0).flatten(1)
    above = (found.advantage > found.threshold).movedim(1, 0).flatten(1)
    title = "Advantage of the token that will be written, in nats (★ above tokens of other texts)"
    return _by_block(values.tolist(), above.tolist(), titles, found.layers, title)


def entry_figure(found: "ConceptEntry") -> "Figure":
    """Plot how readable a behaviour's first words are before its sentences; significant cells have a star.

    Args:
        found: the result of :func:`~probe.circuits.concept_entry`.
    """
    titles = [f"{name}, {n}" for name in found.models for n in _before(found.p[0].shape[1])]
    layers = max(found.layers, key=len)
    values: list[list[float | None]] = [[] for _ in layers]
    above: list[list[bool]] = [[] for _ in layers]
    for own, difference, p in zip(found.layers, found.difference, found.p, strict=True):
        for at, layer in enumerate(layers):
            here = own.index(layer) if layer in own else None
            values[at] += [None] * p.shape[1] if here is None else difference[here].tolist()
            above[at] += [False] * p.shape[1] if here is None else (p[here] <= 0.05).tolist()
    title = f"First words of {found.behaviour!r} before its sentences against others, in nats (★ p ≤ 0.05)"
    return _by_block(values, above, titles, layers, title)


def _before(back: int) -> list[str]:
    return [f"{n} before" for n in range(1, back + 1)]


def _by_block(
    values: Sequence[Sequence[float | None]],
    stars: Sequence[Sequence[bool]],
    columns: Sequence[str],
    layers: Sequence[int],
    title: str,
) -> "Figure":
    """Values by block and column, blue above zero and orange below, with stars; of many columns, the stars alone."""
    large = max((abs(each) for row in values for each in row if each is not None), default=1.0) or 1.0
    written = [
        ["" if each is None else f"{each:.1f}{' ★' if star else ''}" for each, star in zip(row, marks, strict=True)]
        for row, marks in zip(values, stars, strict=True)
    ]
    figure = heatmap(
        values,
        x=list(range(len(columns))),
        y=[f"block {layer}" for layer in layers],
        customdata=[[f"{plain(name)}: {said}" for name, said in zip(columns, row, strict=True)] for row in written],
        colorscale=DIVERGING,
        zmin=-large,
        zmax=large,
        text=written if len(columns) <= _WORDS // 2 else [["★" if star else "" for star in row] for row in stars],
        hovertemplate="%{y}, %{customdata} nats<extra></extra>",
    )
    figure.update_xaxes(
        tickvals=list(range(len(columns))), ticktext=[short(each, 26) for each in columns], tickangle=-40
    )
    return styled(figure, title, 250 + max(22, 44 - len(layers)) * len(layers))


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
    large, values = max(1.0, float(found.values.abs().max())), found.values.tolist()
    figure = heatmap(
        values,
        x=list(range(places)),
        y=[f"block {i}" for i in range(layers)],
        customdata=[names] * layers,
        colorscale=DIVERGING,
        zmin=-large,
        zmax=large,
        text=[[f"{each:.2f}" if places <= 16 else "−" if each < -0.1 else "" for each in row] for row in values],
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

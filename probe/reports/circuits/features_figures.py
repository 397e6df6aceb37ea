"""Figures of latents: their scores with the shares of the error, and their use in the base and the thinking model."""

from typing import TYPE_CHECKING

from probe.reports.html.look import BLUE, GREY, ORANGE, dot, key, nothing, plain, rows_of, short, styled

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from probe.circuits import FeatureScores
    from probe.diff import LatentDifference

_NAME = 36


def features_figure(scores: "FeatureScores", n: int = 15) -> "Figure":
    """Plot the scores of the top latents, with their intervals, on the pairs on which they were not chosen.

    Args:
        scores: the result of :func:`~probe.circuits.feature_scores`.
        n: number of latents.
    """
    from plotly.graph_objects import Figure

    top = scores.top(n)
    if not top:
        return nothing("no latent changes between the clean and the corrupt texts")
    figure = Figure()
    for row, each in enumerate(top):
        carries = each.score.value is not None and each.score.value > 0
        colour, symbol = (BLUE, "circle") if carries else (ORANGE, "diamond")
        dot(
            figure, row, each.score.value, each.score.ci, colour, symbol,
            note=f"latent {each.latent} of {short(each.dictionary, _NAME)}<br>{each.score}, p = {each.p:.3g} (Holm)",
        )  # fmt: skip
    rows_of(figure, [f"{each.latent} · {short(each.dictionary, _NAME)}" for each in top])
    figure.update_xaxes(title=f"score ({plain(scores.about.get('metric', 'metric'))})", zeroline=True)
    key(figure, "carries the metric", BLUE, "circle")
    key(figure, "works against it", ORANGE, "diamond")
    return styled(figure, "Latents: what each carries from the corrupt to the clean text", 150 + 24 * len(top))


def shares_figure(scores: "FeatureScores") -> "Figure":
    """Plot how much of each site's effect its latents, the error and the skip connection carry.

    Args:
        scores: the result of :func:`~probe.circuits.feature_scores`.
    """
    from plotly.graph_objects import Figure

    figure = Figure()
    parts = {"latents": (BLUE, "circle"), "error": (ORANGE, "diamond"), "skip": (GREY, "square")}
    skipped = any(each.skip.any() for each in scores.sites)
    for row, each in enumerate(scores.sites):
        for i, (name, (colour, symbol)) in enumerate(parts.items()):
            share = each.shares[name]
            if share.value is None or (name == "skip" and not skipped):
                continue
            dot(
                figure, row + 0.2 * (i - 1), share.value, share.ci, colour, symbol,
                note=f"{name}: {share.write('{:.0%}'.format)} of the effect of {each.dictionary.writes}",
            )  # fmt: skip
    for name, (colour, symbol) in parts.items():
        if name != "skip" or skipped:
            key(figure, name, colour, symbol)
    rows_of(figure, [short(each.dictionary.name, _NAME) for each in scores.sites])
    figure.update_xaxes(title="share of the site's effect", tickformat=".0%", zeroline=True)
    return styled(figure, "What the dictionary explains, and the error", 150 + 40 * len(scores.sites))


def latent_difference_figure(difference: "LatentDifference", n: int = 15) -> "Figure":
    """Plot the mean activation in the base against that in the thinking model, with the latents that differ marked.

    Args:
        difference: the result of :func:`~probe.diff.latent_difference`.
        n: number of latents that are named.
    """
    from plotly.graph_objects import Figure, Scatter

    active = (difference.mean != 0).any(0).nonzero()[:, 0].tolist()
    if not active:
        return nothing("no latent is active in either model")
    only = dict.fromkeys(difference.thinking_only, "thinking") | dict.fromkeys(difference.base_only, "base")
    doubled = {*difference.doubled}
    named = {*difference.changed[:n]} & ({*only} | doubled)
    figure = Figure()
    groups = {
        "about alike": (GREY, "circle", [i for i in active if i not in only and i not in doubled]),
        "twofold": ("#8748ab", "square", [i for i in active if i in doubled and i not in only]),
        "only in thinking": (ORANGE, "diamond", [i for i in active if only.get(i) == "thinking"]),
        "only in base": (BLUE, "triangle-up", [i for i in active if only.get(i) == "base"]),
    }
    for name, (colour, symbol, members) in groups.items():
        if not members:
            continue
        base, thinking = (difference.mean[row, members].tolist() for row in (0, 1))
        frequency = difference.frequency[:, members].T.tolist()
        figure.add_trace(
            Scatter(
                x=base, y=thinking, mode="markers+text", name=name,
                marker={"color": colour, "symbol": symbol, "size": 7},
                text=[str(i) if i in named else "" for i in members], textposition="top center",
                customdata=[[i, *each] for i, each in zip(members, frequency, strict=True)],
                hovertemplate="latent %{customdata[0]}<br>mean %{x:.3g} in base, %{y:.3g} in thinking<br>"
                "active at %{customdata[1]:.2%} and %{customdata[2]:.2%} of tokens<extra></extra>",
            )
        )  # fmt: skip
    most = float(difference.mean.max())
    figure.add_shape(type="line", x0=0, y0=0, x1=most, y1=most, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="mean activation in the base", rangemode="tozero")
    figure.update_yaxes(title="in the thinking model", rangemode="tozero")
    return styled(figure, f"Latents of {short(difference.dictionary.name, _NAME)} in both models", 420)

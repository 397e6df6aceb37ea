"""Figures of latents: their scores with the shares of the error, and their use in the base and the thinking model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from probe.reports.html.look import BLUE, GREY, ORANGE, dot, key, nothing, plain, rows_of, short, styled
from probe.reports.html.numbers import number

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from probe.circuits import FeatureScores
    from probe.diff import LatentDifference

_NAME = 36
_PURPLE = "#8748ab"


def features_figure(scores: "FeatureScores | Mapping[str, Any]", n: int = 15) -> "Figure":
    """Plot the scores of the top latents, with their intervals, on the pairs on which they were not chosen.

    Args:
        scores: the result of :func:`~probe.circuits.feature_scores`, or what its ``to_dict`` gives.
        n: number of latents.
    """
    from plotly.graph_objects import Figure

    told = scores if isinstance(scores, Mapping) else scores.to_dict(n)
    top = told["top"][:n]
    if not top:
        return nothing("no latent changes between the clean and the corrupt texts")
    figure = Figure()
    for row, each in enumerate(top):
        value, ci = each["score"]["value"], each["score"]["ci"]
        carries = value is not None and value > 0
        colour, symbol = (BLUE, "circle") if carries else (ORANGE, "diamond")
        name = short(each["dictionary"], _NAME)
        note = f"latent {each['latent']} of {name}<br>{number(value)}, p = {number(each['p'])} (Holm)"
        dot(figure, row, value, ci, colour, symbol, note)
    rows_of(figure, [f"{each['latent']} · {short(each['dictionary'], _NAME)}" for each in top])
    figure.update_xaxes(title=f"score ({plain(told['about'].get('metric', 'metric'))})", zeroline=True)
    key(figure, "carries the metric", BLUE, "circle")
    key(figure, "works against it", ORANGE, "diamond")
    return styled(figure, "Latents: what each carries from the corrupt to the clean text", 190 + 24 * len(top), 74)


def shares_figure(scores: "FeatureScores | Mapping[str, Any]") -> "Figure":
    """Plot how much of each site's effect its latents, the error and the skip connection carry.

    Args:
        scores: the result of :func:`~probe.circuits.feature_scores`, or what its ``to_dict`` gives.
    """
    from plotly.graph_objects import Figure

    sites = (scores if isinstance(scores, Mapping) else scores.to_dict(1))["sites"]
    figure = Figure()
    parts = {"latents": (BLUE, "circle"), "error": (ORANGE, "diamond"), "skip": (GREY, "square")}
    for row, each in enumerate(sites):
        for i, (name, (colour, symbol)) in enumerate(parts.items()):
            value = each["shares"][name]["value"]
            if value is not None and (name != "skip" or value):
                note = f"{name}: {value:.0%} of the effect of {plain(each['writes'])}"
                dot(figure, row + 0.2 * (i - 1), value, each["shares"][name]["ci"], colour, symbol, note)
    for name, (colour, symbol) in parts.items():
        if name != "skip" or any(each["shares"]["skip"]["value"] for each in sites):
            key(figure, name, colour, symbol)
    rows_of(figure, [short(each["dictionary"], _NAME) for each in sites])
    figure.update_xaxes(title="share of the site's effect", tickformat=".0%", zeroline=True)
    return styled(figure, "What the dictionary explains, and the error", 190 + 40 * len(sites), 74)


def latent_difference_figure(difference: "LatentDifference | Mapping[str, Any]", n: int = 15) -> "Figure":
    """Plot the mean activation in the base against that in the thinking model, for the latents that differ.

    Args:
        difference: the result of :func:`~probe.diff.latent_difference`, or what its ``to_dict`` gives.
        n: number of latents that are named, those that differ most.
    """
    from plotly.graph_objects import Figure, Scatter

    told = difference if isinstance(difference, Mapping) else difference.to_dict()
    rows = told["latents"]
    if not rows:
        return nothing("no latent differs between the two models")
    kinds = {
        "less than twofold": (GREY, "circle"),
        "twofold": (_PURPLE, "square"),
        "only in thinking": (ORANGE, "diamond"),
        "only in base": (BLUE, "triangle-up"),
    }
    doubled = {*told["doubled"]}
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in kinds}
    for row in rows:
        only = row["only in"]
        groups[f"only in {only}" if only else "twofold" if row["latent"] in doubled else "less than twofold"].append(
            row
        )
    named = {row["latent"] for row in rows[:n]}
    figure = Figure()
    for name, (colour, symbol) in kinds.items():
        if some := groups[name]:
            figure.add_trace(
                Scatter(
                    x=[row["mean"][0] for row in some],
                    y=[row["mean"][1] for row in some],
                    mode="markers+text",
                    name=name,
                    marker={"color": colour, "symbol": symbol, "size": 8},
                    text=[str(row["latent"]) if row["latent"] in named else "" for row in some],
                    textposition="top center",
                    customdata=[[row["latent"], *row["frequency"]] for row in some],
                    hovertemplate="latent %{customdata[0]}<br>mean %{x:.3g} in base, %{y:.3g} in thinking<br>"
                    "active at %{customdata[1]:.2%} and %{customdata[2]:.2%} of tokens<extra></extra>",
                )
            )
    most = max(max(row["mean"]) for row in rows)
    figure.add_shape(type="line", x0=0, y0=0, x1=most, y1=most, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="mean activation in the base", rangemode="tozero")
    figure.update_yaxes(title="in the thinking model", rangemode="tozero")
    return styled(figure, f"Latents that differ, of {short(told['dictionary'], _NAME)}", 460, 74)

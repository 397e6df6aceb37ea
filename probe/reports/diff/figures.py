"""Figures of what training changed: heads, checkpoint series, directions and latents."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probe.reports.html.look import BLUE, DIVERGING, GREY, ORANGE, RISING, heatmap, plain, styled
from probe.reports.html.numbers import number, percent
from probe.statistics import write_p

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_NAMED = 10
"""Number of heads that are drawn in a series."""


def shift_figure(heads: Mapping[str, Any]) -> "Figure":
    """Plot every head's change of importance, with a frame around significant changes.

    Args:
        heads: ``heads`` of the ``results.json`` of ``probe diff``.
    """
    before, after, p = heads["before"], heads["after"], heads["p"]
    change = [[b - a for a, b in zip(*rows, strict=True)] for rows in zip(before, after, strict=True)]
    large = max((abs(each) for row in change for each in row), default=1.0) or 1.0
    small = len(before[0]) * len(before) <= 128
    figure = heatmap(
        change,
        x=[f"h{i}" for i in range(len(before[0]))],
        y=[f"block {i}" for i in range(len(before))],
        colorscale=DIVERGING,
        zmin=-large,
        zmax=large,
        text=[
            [f"{percent(a)}→{percent(b)}" for a, b in zip(*rows, strict=True)]
            for rows in zip(before, after, strict=True)
        ],
        written=small,
        customdata=[[write_p(value) or "not tested" for value in row] for row in p],
        gap=3,
        hovertemplate="%{y}, %{x}: %{text} (%{customdata})<extra></extra>",
    )
    for layer, row in enumerate(p):
        for head, value in enumerate(row):
            if value is not None and value < 0.05:
                figure.add_shape(
                    type="rect", x0=head - 0.48, x1=head + 0.48, y0=layer - 0.47, y1=layer + 0.47,
                    line={"color": GREY, "width": 2.5},
                )  # fmt: skip
    return styled(
        figure,
        "Each head's share of the edge scores, base → thinking (framed: significant)",
        130 + 44 * len(before),
    )


def series_figure(series: Sequence[Mapping[str, Any]]) -> "Figure":
    """Plot the importance of the heads that change most against training steps, for each run of a series.

    Args:
        series: ``series`` of the ``results.json`` of ``probe diff``.
    """
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    runs = list(series)
    figure = make_subplots(
        cols=len(runs), shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=[plain(run["name"]) for run in runs]
    )
    change: dict[tuple[int, int], float] = {}
    for run in runs:
        first, last = run["importance"][0], run["importance"][-1]
        for layer, rows in enumerate(zip(first, last, strict=True)):
            for head, (a, b) in enumerate(zip(*rows, strict=True)):
                change[layer, head] = max(change.get((layer, head), 0.0), abs(b - a))
    shown = sorted(change, key=lambda at: -change[at])[:_NAMED]
    colours = (
        "#2f7fc1",
        "#c8641e",
        "#3c8d5a",
        "#8e5bb5",
        "#b8860b",
        "#c2407d",
        "#4aa3a2",
        "#7a6a4f",
        "#5b6fc4",
        "#9a9a2f",
    )
    for column, run in enumerate(runs, 1):
        for (layer, head), colour in zip(shown, colours, strict=False):
            figure.add_trace(
                Scatter(
                    x=run["steps"],
                    y=[each[layer][head] for each in run["importance"]],
                    mode="lines+markers",
                    name=f"a{layer}.h{head}",
                    legendgroup=f"{layer}.{head}",
                    showlegend=column == 1,
                    line={"color": colour, "width": 2},
                    marker={"size": 5},
                ),
                1,
                column,
            )
    figure.update_yaxes(tickformat=".0%")
    figure.update_xaxes(title="step")
    return styled(figure, "Heads by step of training", 380, legend=70)


def transfer_figure(found: Mapping[str, Any], title: str) -> "Figure":
    """Plot the accuracy and the steering of each model's direction in each model.

    Args:
        found: ``direction`` or ``truth`` of the ``results.json`` of ``probe diff``.
    """
    models = ("base", "thinking")
    values = [[found["accuracy"][of][on] for on in models] for of in models]
    steered = [[found["steered"][of][on] for on in models] for of in models]
    text = [
        [f"probe {percent(a)}" + ("" if s is None else f"<br>steering {number(s)}") for a, s in zip(*rows, strict=True)]
        for rows in zip(values, steered, strict=True)
    ]
    figure = heatmap(
        values,
        x=[f"on {on}" for on in models],
        y=[f"of {of}" for of in models],
        text=text,
        colorscale=RISING,
        zmin=0.5,
        zmax=1,
        gap=3,
        hoverinfo="skip",
    )
    figure.update_yaxes(autorange="reversed")
    return styled(figure, title, 250)


def latents_figure(found: Mapping[str, Any]) -> "Figure":
    """Plot every latent of the SAE over both models by its scale in the base and its number of active tokens.

    Args:
        found: ``latents`` of the ``results.json`` of ``probe diff``.
    """
    from plotly.graph_objects import Figure, Scatter

    active = [i for i, n in enumerate(found["active"][1]) if n]
    figure = Figure(
        Scatter(
            x=[found["ratio"][i] for i in active],
            y=[found["active"][1][i] for i in active],
            mode="markers",
            text=[f"latent {i}" for i in active],
            marker={
                "color": [ORANGE if i in set(found["thinking_only"]) else BLUE for i in active],
                "size": 7,
                "opacity": 0.7,
            },
            hovertemplate="%{text}: scale %{x:.2f} in the base, active at %{y} tokens<extra></extra>",
        )
    )
    figure.add_vline(x=0.5, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="scale in the base over scale in the thinking model", range=[-0.6, 2.1])
    figure.update_yaxes(title="active tokens in the thinking model", type="log")
    return styled(figure, "Latents of an SAE over both models (orange: only in the thinking model)", 400)


def difference_figure(found: Mapping[str, Any]) -> "Figure":
    """Plot how well what the mean difference says agrees with what training raised, beside the nulls.

    Args:
        found: ``difference`` of the ``results.json`` of ``probe diff``.
    """
    from plotly.graph_objects import Figure, Scatter

    told = [each for each in found["readings"] if each["agrees"] is not None]
    names = {"random": "random directions (95 %)", "halves": "halves of the texts (95 %)"}
    figure = Figure()
    for (null, label), symbol in zip(names.items(), ("line-ns-open", "x-thin-open"), strict=True):
        known = [each for each in told if null in each["of_null"]]
        figure.add_trace(
            Scatter(
                x=[each["of_null"][null] for each in known],
                y=[each["place"] for each in known],
                mode="markers",
                name=label,
                marker={"symbol": symbol, "size": 14, "color": GREY, "line": {"width": 2}},
                hovertemplate=f"{label}: %{{x:.2f}}<extra></extra>",
            )
        )
    figure.add_trace(
        Scatter(
            x=[each["agrees"] for each in told],
            y=[each["place"] for each in told],
            mode="markers",
            name="mean difference",
            customdata=[[plain(" ".join(map(repr, each["top"][:5])))] for each in told],
            marker={"size": 11, "color": BLUE},
            hovertemplate="%{y}: %{x:.2f}<br>raises %{customdata[0]}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="correlation with what training raised along other traces", range=[-0.3, 1.02])
    title = f"What the mean difference says at resid_post.{found['layer']}"
    return styled(figure, title, 190 + 44 * len(told), legend=66)

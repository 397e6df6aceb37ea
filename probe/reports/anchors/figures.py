"""Figures of thought anchors and of forced answers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from probe.reports.html.look import BLUE, GREY, ORANGE, short, styled

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from probe.anchors import Anchors, ForcedAnswers


def anchors_figure(anchors: "Anchors") -> "Figure":
    """Plot the importance of each sentence, and the accuracy of rollouts after it.

    Args:
        anchors: the result of :func:`~probe.anchors.thought_anchors`.
    """
    from plotly.graph_objects import Bar, Figure, Scatter

    n = len(anchors.importance)
    labels = [f"{i} {short(text, 44)}" for i, text in enumerate(anchors.sentences[:n])]
    figure = Figure(
        Bar(
            x=list(anchors.importance),
            y=labels,
            orientation="h",
            name="importance",
            marker={"color": [BLUE if value > 0 else ORANGE for value in anchors.importance]},
            hovertemplate="%{y}<br>%{x:+.2f}<extra></extra>",
        )
    )
    figure.add_trace(
        Scatter(
            x=list(anchors.accuracy[1:]),
            y=labels,
            mode="lines+markers",
            name="accuracy of rollouts after it",
            line={"color": GREY, "width": 1.5, "dash": "dot"},
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(range=[-1.08, 1.08], zeroline=True)
    return styled(figure, "Thought anchors: change of accuracy by each sentence", 150 + 26 * n, legend=40)


def forced_figure(forced: "ForcedAnswers") -> "Figure":
    """Plot the accuracy if thinking is cut off after each sentence.

    Args:
        forced: the result of :func:`~probe.anchors.forced_answers`.
    """
    from plotly.graph_objects import Figure, Scatter

    labels = ["nothing", *(f"{i} {short(text, 44)}" for i, text in enumerate(forced.sentences))]
    labels = [labels[n] for n in forced.after]
    figure = Figure(
        Scatter(
            x=list(forced.accuracy),
            y=labels,
            mode="lines+markers",
            line={"color": BLUE, "width": 2},
            text=[short(answer, 20) for answer in forced.answers],
            hovertemplate="%{y}<br>accuracy %{x:.0%}, most common answer %{text}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(range=[-0.03, 1.03], tickformat=".0%", title="accuracy if it answers now")
    return styled(figure, "Forced answers", 150 + 26 * len(forced.accuracy))


def sentences_figure(row: Mapping[str, Any]) -> "Figure":
    """Plot the importance of the sentences of a trace in order, with intervals, and how rollouts end after each.

    Args:
        row: one of the ``traces`` in ``results.json`` of ``probe anchors``.
    """
    from plotly.graph_objects import Bar, Figure, Scatter

    figure, sentences = Figure(), row["sentences"]
    graded = row["known"] is not None
    what, unit = ("importance", "change of accuracy") if graded else ("shift", "nats")
    places = [i for i, each in enumerate(sentences) if each.get(what) and each[what]["value"] is not None]
    texts = [short(sentences[i]["text"], 80) for i in places]
    if places:
        values = [sentences[i][what]["value"] for i in places]
        ends = [sentences[i][what]["ci"] or [value, value] for i, value in zip(places, values, strict=True)]
        figure.add_trace(
            Bar(
                x=places,
                y=values,
                text=texts,
                textposition="none",
                name=f"{what} ({unit})",
                marker={"color": [BLUE if value >= 0 else ORANGE for value in values]},
                error_y={
                    "array": [high - value for (_, high), value in zip(ends, values, strict=True)],
                    "arrayminus": [value - low for (low, _), value in zip(ends, values, strict=True)],
                    "color": GREY,
                    "thickness": 1,
                    "width": 2,
                },
                hovertemplate="%{x} %{text}<br>%{y:+.2f}<extra></extra>",
            )
        )
        if graded:
            figure.add_trace(
                Scatter(
                    x=places,
                    y=[sentences[i]["accuracy"] for i in places],
                    mode="lines",
                    name="accuracy of rollouts after it",
                    line={"color": GREY, "width": 1.5, "dash": "dot"},
                    hovertemplate="after %{x}: %{y:.0%}<extra></extra>",
                )
            )
    if forced := row.get("forced"):
        shares, said = (forced["accuracy"], "accuracy") if graded else (forced["agreement"], "agreement")
        figure.add_trace(
            Scatter(
                x=[n - 1 for n in forced["after"]],
                y=shares,
                mode="lines+markers",
                name=f"{said} of forced answers after it",
                text=[short(answer, 20) for answer in forced["answers"]],
                line={"color": GREY, "width": 2},
                hovertemplate="after %{x}: %{y:.0%}, mostly %{text}<extra></extra>",
            )
        )
    figure.update_xaxes(title="sentence")
    return styled(figure, "The sentences in order", 350, legend=85)

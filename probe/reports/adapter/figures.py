"""Figures of adapters: how training went, whether the claimed latents carry the effect, objectives side by side."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from probe.reports.html.look import GREY, dot, key, nothing, rows_of, styled
from probe.reports.html.numbers import interval, number, percent

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_CLAIMED, _DRAWN = ("#2f7fc1", "circle"), (GREY, "x")
_ROW = 34
"""Height of a row, in pixels."""
#: Measures of a study that are drawn, with their titles.
_DRAWN_MEASURES = {
    "deployed": "KL from the base model",
    "ce": "cross-entropy, change",
    "general": "the same, other texts",
    "solved": "problems solved, change",
}


def tuning_figure(history: Sequence[Mapping[str, float]]) -> "Figure":
    """Loss on the validation texts and on those trained on, by step.

    Args:
        history: of :class:`~probe.adapters.Tuned`.
    """
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    for name, at, (colour, symbol) in (("validation", "loss", _CLAIMED), ("training", "train", _DRAWN)):
        looks = [look for look in history if at in look]
        figure.add_trace(
            Scatter(
                x=[look["step"] for look in looks],
                y=[look[at] for look in looks],
                name=name,
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={"color": colour, "symbol": symbol, "size": 7},
            )
        )
    figure.update_xaxes(title="step")
    figure.update_yaxes(rangemode="tozero")
    return styled(figure, "Loss, nats a token", 340, legend=70)


def verification_figure(found: Mapping[str, Any]) -> "Figure":
    """What is gone without the claimed latents and what they bring about alone, beside as many drawn ones.

    Args:
        found: ``verification.json``.
    """
    from plotly.graph_objects import Figure

    sides = {"claimed": _CLAIMED, "drawn": _DRAWN}
    rows = {
        "effect gone without them": found["necessity"],
        "effect had by raising them": found["sufficiency"],
    }
    if found.get("behaviour"):
        rows["behaviour gone without them"] = {
            side: found["behaviour"][f"taken back, {side}"]
            for side in sides
            if f"taken back, {side}" in found["behaviour"]
        }
    if all(each["value"] is None for row in rows.values() for each in row.values()):
        return nothing("the adapter changes nothing: there is no share of its effect")
    figure = Figure()
    for side, look in sides.items():
        key(figure, f"{side} latents", *look)
        for place, (name, row) in enumerate(rows.items()):
            if side in row and row[side]["value"] is not None:
                each = row[side]
                note = f"<b>{name}</b>, {side}<br>{percent(each['value'], 1)} {interval(each['ci'])}"
                dot(figure, place + (0.14 if side == "drawn" else -0.14), each["value"], each["ci"], *look, note)
    rows_of(figure, list(rows))
    figure.update_xaxes(tickformat=".0%", zeroline=True)
    return styled(figure, "Shares of the adapter's effect", _ROW * 2 * len(rows) + 130, legend=44)


def study_figure(study: Mapping[str, Any]) -> "Figure":
    """Every row of a study, measure by measure, with intervals over seeds and texts.

    Args:
        study: ``study.json``.
    """
    from plotly.subplots import make_subplots

    rows = study["rows"]
    shown = [name for name in _DRAWN_MEASURES if any(name in row["measures"] for row in rows.values())]
    figure = make_subplots(
        1, len(shown), shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=[_DRAWN_MEASURES[n] for n in shown]
    )
    for column, measure in enumerate(shown, 1):
        for place, (name, row) in enumerate(rows.items()):
            each = row["measures"].get(measure)
            if each is None:
                continue
            value = (percent if measure == "solved" else number)(each["value"], 1 if measure == "solved" else 4)
            control = ":" in name or name == "random"
            note = f"<b>{escape(name)}</b><br>{_DRAWN_MEASURES[measure]}: {value}"
            dot(figure, place, each["value"], each["ci"], *(_DRAWN if control else _CLAIMED), note, (1, column))
        figure.update_xaxes(col=column, zeroline=True, nticks=4, tickformat=".0%" if measure == "solved" else "")
    rows_of(figure, [escape(name) for name in rows])
    return styled(figure, "", _ROW * len(rows) + 90).update_annotations(font_size=12)

"""Figures of adapters: training, what the claimed latents carry, and a comparison of objectives."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probe.reports.adapter.rows import with_current_keys
from probe.reports.html.look import GREY, dot, key, nothing, plain, rows_of, styled
from probe.reports.html.numbers import interval, number, percent

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_CLAIMED, _CONTROL = ("#2f7fc1", "circle"), (GREY, "x")
_ROW = 34
"""Height of a row, in pixels."""
#: Measures of a study that are shown, with their titles.
_SHOWN = {
    "deployed": "KL from the base model",
    "ce": "cross-entropy, change",
    "general": "the same on other texts",
    "solved": "problems solved, change",
}


def tuning_figure(history: Sequence[Mapping[str, float]]) -> "Figure":
    """Loss on validation texts and on training texts by step.

    Args:
        history: evaluations during training, of :class:`~probe.adapters.Tuned`.
    """
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    for name, at, (colour, symbol) in (("validation", "loss", _CLAIMED), ("training", "train", _CONTROL)):
        checks = [check for check in history if at in check]
        figure.add_trace(
            Scatter(
                x=[check["step"] for check in checks],
                y=[check[at] for check in checks],
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
    """Shares of an adapter's effect that ablating latents removes and raising them reproduces, claimed and random ones.

    Args:
        found: what ``verification.json`` holds.
    """
    from plotly.graph_objects import Figure

    found = with_current_keys(found)
    sides = {"claimed": _CLAIMED, "random": _CONTROL}
    rows = {
        "effect removed by ablation": found["necessity"],
        "effect reproduced by raising": found["sufficiency"],
    }
    if found.get("behaviour"):
        rows["behaviour removed by ablation"] = {
            side: found["behaviour"][f"taken back, {side}"]
            for side in sides
            if f"taken back, {side}" in found["behaviour"]
        }
    if all(each["value"] is None for row in rows.values() for each in row.values()):
        return nothing("the adapter changes nothing, so there are no shares of its effect")
    figure = Figure()
    for side, look in sides.items():
        key(figure, f"{side} latents", *look)
        for place, (name, row) in enumerate(rows.items()):
            if side in row and row[side]["value"] is not None:
                each = row[side]
                note = f"<b>{name}</b>, {side} latents<br>{percent(each['value'], 1)} {interval(each['ci'])}"
                dot(figure, place + (0.14 if side == "random" else -0.14), each["value"], each["ci"], *look, note)
    rows_of(figure, list(rows))
    figure.update_xaxes(tickformat=".0%", zeroline=True)
    return styled(figure, "Shares of the adapter's effect", _ROW * 2 * len(rows) + 130, legend=44)


def study_figure(study: Mapping[str, Any]) -> "Figure":
    """Every row of a study, one panel for each measure, with intervals over seeds and texts.

    Args:
        study: what ``study.json`` holds.
    """
    from plotly.subplots import make_subplots

    rows = study["rows"]
    shown = [name for name in _SHOWN if any(name in row["measures"] for row in rows.values())]
    figure = make_subplots(
        1, len(shown), shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=[_SHOWN[n] for n in shown]
    )
    for column, measure in enumerate(shown, 1):
        for place, (name, row) in enumerate(rows.items()):
            each = row["measures"].get(measure)
            if each is None:
                continue
            value = (percent if measure == "solved" else number)(each["value"], 1 if measure == "solved" else 4)
            control = ":" in name or name == "random"
            note = f"<b>{plain(name)}</b><br>{_SHOWN[measure]}: {value}"
            dot(figure, place, each["value"], each["ci"], *(_CONTROL if control else _CLAIMED), note, (1, column))
        figure.update_xaxes(col=column, zeroline=True, nticks=4, tickformat=".0%" if measure == "solved" else "")
    rows_of(figure, [plain(name) for name in rows])
    return styled(figure, "", _ROW * len(rows) + 90).update_annotations(font_size=12)

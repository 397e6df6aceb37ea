"""Figures of accuracy against what the thinking model supplies: bits, or passes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probe.reports.html.look import plain, styled
from probe.reports.html.numbers import interval, number, percent
from probe.reports.run.arms import CHANGED, FAMILIES, OTHER, UPPER_BOUND, family_of, in_order
from probe.reports.run.figures import arm_hover

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# One look for each family; each colour has a contrast of at least 3 on white and on near black.
_LOOKS = {
    "main": ("#2f7fc1", "circle"),
    "control": ("#7d8590", "x"),
    "mechanism": ("#9a6bc9", "diamond"),
    "baseline": ("#c8641e", "square"),
    CHANGED: ("#1f9a94", "pentagon"),
    UPPER_BOUND: ("#c0506a", "cross"),
    "recipe v1": ("#2e8f5b", "triangle-up"),
    "recipe v2": ("#b8860b", "triangle-down"),
    OTHER: ("#7d8590", "star"),
}
_WIDTH, _HEIGHT = 1000, 470  # assumed size of the plot in pixels, by which labels are kept apart; it may be drawn wider


@dataclass(frozen=True)
class _Dot:
    name: str
    price: float
    accuracy: float
    low_high: Sequence[float] | None
    said: str


def bits_figure(results: Mapping[str, Any]) -> "Figure":
    """Draw the accuracy of every arm against the bits per token that the thinking model supplies.

    The line joins the arms that no other arm beats with the same bits or fewer, upper bounds aside. The thinking model
    itself is at the bits per token that encode its text given the base model. An arm without room for a label is named
    in its hover label.

    Args:
        results: the contents of ``results.json``.
    """
    dots = list(_of_bits(results))
    return _drawn(
        dots, "bits", "Correct answers by bits from the thinking model", "bits per token from the thinking model"
    )


def passes_figure(results: Mapping[str, Any]) -> "Figure":
    """Draw the accuracy of every arm against the passes of the thinking model for an answer.

    The line joins the arms that no other arm beats with the same passes or fewer, upper bounds aside.

    Args:
        results: the contents of ``results.json``.
    """
    dots = list(_of_passes(results))
    return _drawn(
        dots, "passes", "Correct answers by passes of the thinking model", "passes of the thinking model per answer"
    )


def _drawn(dots: list[_Dot], unit: str, heading: str, axis: str) -> "Figure":
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    best = _frontier(dots)
    if len(best) > 1:
        figure.add_trace(
            Scatter(
                x=[dot.price for dot in best],
                y=[dot.accuracy for dot in best],
                mode="lines",
                line={"color": "rgba(128,128,128,0.6)", "width": 1.5, "shape": "hv"},
                name=f"best with these {unit} or fewer",
                hoverinfo="skip",
            )
        )
    places = _labelled(dots, best)
    for family in (*FAMILIES, OTHER):
        members = [dot for dot in dots if family_of(dot.name) == family]
        if not members:
            continue
        colour, symbol = _LOOKS[family]
        figure.add_trace(
            Scatter(
                x=[dot.price for dot in members],
                y=[dot.accuracy for dot in members],
                mode="markers+text",
                name=family,
                marker={"color": colour, "symbol": symbol, "size": 10},
                text=[plain(dot.name) if dot.name in places else "" for dot in members],
                textposition=[places.get(dot.name, "top center") for dot in members],
                textfont={"size": 12},
                cliponaxis=False,
                hovertemplate=[_hover(dot) + "<extra></extra>" for dot in members],
            )
        )
    most = max((dot.price for dot in dots), default=0.0) or 1.0
    styled(figure, heading, _HEIGHT + 130, legend=64)
    title = {"text": axis, "font": {"size": 13}, "standoff": 6}
    figure.update_xaxes(title=title, range=[-0.04 * most, 1.08 * most], zeroline=False)
    return figure.update_yaxes(tickformat=".0%", range=[-0.04, 1.06], zeroline=False)


def _of_bits(results: Mapping[str, Any]) -> Iterable[_Dot]:
    arms = results.get("arms") or {}
    for name in in_order(arms):
        arm = arms[name]
        bits = 0.0 if name == "base" else arm.get("bits_per_token")
        if bits is None or arm.get("accuracy") is None:
            continue
        parts = {part: value for part, value in (arm.get("parts") or {}).items() if value}
        note = ", ".join(f"{part} {number(value)}" for part, value in parts.items())
        said = f"{number(bits)} bits per token" + (f" ({plain(note)})" if note else "")
        yield _Dot(name, bits, arm["accuracy"], arm.get("ci"), said)


def _of_passes(results: Mapping[str, Any]) -> Iterable[_Dot]:
    arms = results.get("arms") or {}
    for name in in_order(arms):
        arm = arms[name]
        passes, base = arm.get("thinking_passes"), arm.get("base_passes")
        if passes is None or arm.get("accuracy") is None:
            continue
        said = f"{number(passes, 0)} passes of the thinking model, {number(base, 0)} of the base model"
        yield _Dot(name, passes, arm["accuracy"], arm.get("ci"), said)


def _frontier(dots: Iterable[_Dot]) -> list[_Dot]:
    best: list[_Dot] = []
    for dot in sorted(dots, key=lambda dot: (dot.price, -dot.accuracy)):
        if family_of(dot.name) == UPPER_BOUND:
            continue
        if not best or dot.accuracy > best[-1].accuracy:
            best.append(dot)
    return best


def _labelled(dots: list[_Dot], best: list[_Dot]) -> dict[str, str]:
    """Choose the dots with labels, and the side of each label, so that nothing overlaps; main arms come first."""
    most = max((dot.price for dot in dots), default=0.0) or 1.0
    at = {dot.name: (_WIDTH * dot.price / most, _HEIGHT * (1 - dot.accuracy)) for dot in dots}
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in at.values()]
    names = {dot.name for dot in best}
    places: dict[str, str] = {}
    for dot in sorted(dots, key=lambda dot: (family_of(dot.name) != "main", dot.name not in names)):
        x, y = at[dot.name]
        width = 7 * len(dot.name)
        sides = [
            ("middle right", x + 8, y - 8),
            ("top center", x - width / 2, y - 24),
            ("bottom center", x - width / 2, y + 8),
            ("middle left", x - 8 - width, y - 8),
        ]
        for side, left, top in sides if dot.name not in names else [*sides[1:], sides[0]]:  # the line goes to the right
            box = (left, top, left + width, top + 16)
            if left > -40 and left + width < 1.08 * _WIDTH and not any(_meet(box, other) for other in taken):
                taken.append(box)
                places[dot.name] = side
                break
    return places


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _hover(dot: _Dot) -> str:
    return arm_hover(dot.name, f"{percent(dot.accuracy, 1)} {interval(dot.low_high)}", dot.said)

"""How a run's parts were trained: loss curves, what has not converged, and the learning curve over traces."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from probe.reports.html.look import BLUE, GREY, NAME, ORANGE, SYMBOLS, nothing, short, styled
from probe.reports.html.numbers import interval, percent, value_and_interval
from probe.reports.run.arms import in_order

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_COLUMNS, _PANEL = 3, 190
_COLOURS = (BLUE, ORANGE, GREY, "#3a8f5b", "#8a5cc0", "#b8507f", "#8c7a1f")


def not_converged(results: Mapping[str, Any], arm: str) -> list[str]:
    """Name the parts of an arm whose training reached its maximum number of steps; empty if the run does not say."""
    return list(((results.get("arms") or {}).get(arm) or {}).get("not_converged") or [])


def convergence_sentences(results: Mapping[str, Any]) -> list[str]:
    """Say which arms have a part that has not converged, and what to do; empty if all have converged.

    Args:
        results: the contents of ``results.json``.
    """
    arms = {name: parts for name in in_order(results.get("arms") or {}) if (parts := not_converged(results, name))}
    seeds = results.get("seeds") or {}
    for seed, entry in zip(seeds.get("values") or [], seeds.get("hybrid") or [], strict=False):
        if parts := entry.get("not_converged"):
            arms.setdefault("hybrid" if seed == seeds["values"][0] else f"hybrid, seed {seed}", list(parts))
    if not arms:
        return []
    parts = list(dict.fromkeys(part for each in arms.values() for part in each))
    ceilings = (results.get("training") or {}).get("parts") or {}
    named = ", ".join(f"{part} ({ceilings[part]['steps']} steps)" if part in ceilings else part for part in parts)
    return [
        "The validation loss was still falling when training reached its maximum number of steps: " + named + ". "
        f"Arms marked with * depend on it ({', '.join(arms)}); raise steering.steps, policy.steps or distil.steps."
    ]


def training_figure(results: Mapping[str, Any]) -> "Figure":
    """Draw the loss of every trained part by step, on validation traces and on train traces.

    Args:
        results: the contents of ``results.json``.
    """
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    parts = (results.get("training") or {}).get("parts") or {}
    if not parts:
        return nothing("nothing was trained")
    rows = -(-len(parts) // _COLUMNS)
    titles = [short(name, NAME) + ("" if each["converged"] else " *") for name, each in parts.items()]
    spacing = min(0.25, 0.5 / rows) if rows > 1 else 0.0
    figure = make_subplots(rows, _COLUMNS, subplot_titles=titles, vertical_spacing=spacing, horizontal_spacing=0.09)
    for i, each in enumerate(parts.values()):
        for name, at, colour, dash in (("train", "train", GREY, "dot"), ("validation", "loss", BLUE, "solid")):
            checks = [check for check in each["checks"] if at in check]
            figure.add_trace(
                Scatter(
                    x=[check["step"] for check in checks],
                    y=[check[at] for check in checks],
                    name=name,
                    legendgroup=name,
                    showlegend=i == 0,
                    mode="lines+markers",
                    line={"color": colour, "width": 2, "dash": dash},
                    marker={"color": colour, "size": 5},
                    hovertemplate="step %{x}: %{y:.4f}<extra></extra>",
                ),
                i // _COLUMNS + 1,
                i % _COLUMNS + 1,
            )
    figure.update_annotations(font={"size": 12})
    figure.update_yaxes(rangemode="tozero")
    return styled(figure, "Loss by step", _PANEL * rows + 110, legend=36)


def curve_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the learning curve: for each number of traces its arms, each with ``gap``, ``ci`` and ``marked``."""
    rows = []
    for point in results.get("curve") or []:
        arms = {}
        for name in in_order(point["arms"]):
            arm = point["arms"][name]
            gap, ci = value_and_interval(arm["gap_recovered"])
            arms[name] = {"accuracy": arm["accuracy"], "gap": gap, "ci": ci, "marked": bool(arm["not_converged"])}
        rows.append({"traces": point["traces"], "arms": arms})
    return rows


def curve_figure(results: Mapping[str, Any]) -> "Figure":
    """Draw the gap recovered by each learned arm against the number of train traces.

    Args:
        results: the contents of ``results.json``.
    """
    from plotly.graph_objects import Figure, Scatter

    rows = curve_rows(results)
    if not rows:
        return nothing("no learning curve was measured")
    figure = Figure()
    for i, name in enumerate(rows[0]["arms"]):
        found = [(row["traces"], row["arms"][name]) for row in rows if row["arms"][name]["gap"] is not None]
        bounds = [each["ci"] or (each["gap"], each["gap"]) for _, each in found]
        colour = _COLOURS[i % len(_COLOURS)]
        figure.add_trace(
            Scatter(
                x=[n for n, _ in found],
                y=[each["gap"] for _, each in found],
                name=short(name, NAME),
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={"color": colour, "symbol": SYMBOLS[i % len(SYMBOLS)], "size": 9},
                error_y={
                    "array": [high - each["gap"] for (_, high), (_, each) in zip(bounds, found, strict=True)],
                    "arrayminus": [each["gap"] - low for (low, _), (_, each) in zip(bounds, found, strict=True)],
                    "color": colour,
                    "thickness": 1.5,
                },
                hovertext=[
                    f"{short(name, NAME)}, {n} traces: {percent(each['gap'])} {interval(each['ci'])}"
                    for n, each in found
                ],
                hoverinfo="text",
            )
        )
    figure.update_xaxes(title="train traces", type="log", tickvals=[row["traces"] for row in rows])
    figure.update_xaxes(ticktext=[str(row["traces"]) for row in rows])
    figure.update_yaxes(tickformat=".0%")
    return styled(figure, "Gap recovered by number of train traces", 340, legend=52)

"""Compares runs in a table for the terminal, a figure for Jupyter, and a page."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.files import write_text
from probe.reports.html.filling import fill, markup
from probe.reports.html.look import dot, key, nothing, plain, rows_of, styled
from probe.reports.html.numbers import estimate, interval, number, p_value, percent
from probe.reports.html.terminal import terminal_table
from probe.reports.run.arms import MEANING, gap_of, in_order, no_gap

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from rich.table import Table

# Each has a contrast of at least 3 on white and on near black.
_LOOKS = (
    ("#2f7fc1", "circle"),
    ("#c8641e", "square"),
    ("#2e8f5b", "diamond"),
    ("#9a6bc9", "triangle-up"),
    ("#b8860b", "x"),
    ("#7d8590", "triangle-down"),
)
_ROW = 17
"""Height of a run's row, in pixels."""


def comparison_table(found: Mapping[str, Any]) -> "Table":
    """Tabulate the gap recovered by every arm in every run.

    Args:
        found: from :func:`probe.compare_runs`.
    """
    rows = [(row["arm"], *row["cells"]) for row in comparison_rows(found)]
    title = "Share of the gap that each arm recovers; for base and thinking, the correct answers"
    return terminal_table(["arm", *(run["name"] for run in found["runs"])], rows, title=title)


def differences_table(found: Mapping[str, Any]) -> "Table":
    """Tabulate differences in accuracy from the first run, over the problems that both answered.

    Args:
        found: from :func:`probe.compare_runs`.
    """
    rows = [
        (
            test["run"],
            test["arm"],
            f"{percent(test['difference'], 1)} {interval(test['ci'])}".rstrip(),
            p_value(test["p_holm"]),
            number(test["n"], 0),
        )
        for test in found["tests"]
    ]
    return terminal_table(
        ("run", "arm", "difference", "p, Holm", "problems"),
        rows,
        title=f"Accuracy minus that of {found['runs'][0]['name']}",
        caption="p, Holm: corrected for the number of tests · problems: those that both runs answered",
        left=2,
    )


def comparison_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Write the accuracy of both models and the gap recovered by every arm, one cell for each run."""
    runs = found["runs"]
    arms = in_order({arm for run in runs for arm in run["results"].get("arms") or {}})
    rows = []
    for arm in arms:
        cells = []
        for run in runs:
            entry = (run["results"].get("arms") or {}).get(arm)
            if entry is None:
                cells.append("")
            elif arm in ("base", "thinking"):
                cells.append(f"{percent(entry.get('accuracy'))} correct")
            elif no_gap(run["results"]):
                cells.append("no gap")
            else:
                cells.append(estimate((run["results"].get("gap_recovered") or {}).get(arm)))
        rows.append({"arm": arm, "meaning": MEANING.get(arm, ""), "cells": cells})
    return rows


def comparison_figure(found: Mapping[str, Any]) -> "Figure":
    """Draw the gap recovered by every arm with its interval, one colour for each run.

    Args:
        found: from :func:`probe.compare_runs`.
    """
    from plotly.graph_objects import Figure

    runs = found["runs"]
    arms = [
        arm
        for arm in in_order({arm for run in runs for arm in run["results"].get("gap_recovered") or {}})
        if any(gap_of(run["results"], arm)[0] is not None for run in runs)
    ]
    if not arms:
        return nothing("no run has a gap")
    figure, apart = Figure(), 0.75 / len(runs)
    for i, run in enumerate(runs):
        look = _LOOKS[i % len(_LOOKS)]
        key(figure, run["name"], *look)
        for place, arm in enumerate(arms):
            value, low_high = gap_of(run["results"], arm)
            note = f"<b>{plain(arm)}</b>, {plain(run['name'])}<br>{percent(value, 1)} {interval(low_high)}"
            dot(figure, place + (i - (len(runs) - 1) / 2) * apart, value, low_high, *look, note)
    rows_of(figure, [plain(arm) for arm in arms])
    figure.update_xaxes(tickformat=".0%")
    return styled(figure, "", _ROW * len(arms) * max(2, len(runs)) + 130, legend=40)


def write_comparison(found: Mapping[str, Any], path: str | Path) -> Path:
    """Write the comparison as one HTML file that needs no other.

    Args:
        found: from :func:`probe.compare_runs`.
    """
    names = [run["name"] for run in found["runs"]]
    settings = sorted({key for run in found["runs"] for key in run["settings"]})
    page = fill(
        "run/compare.html.j2",
        None,
        found=found,
        names=names,
        rows=comparison_rows(found),
        settings=[(key, [str(run["settings"].get(key)) for run in found["runs"]]) for key in settings],
        figure=markup(comparison_figure(found), "compare"),
    )
    return write_text(Path(path), page)

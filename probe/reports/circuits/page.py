"""A behaviour's circuit as a page that stands alone, and as a table for the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.files import write_text
from probe.reports.circuits.figures import circuit_figure, faithfulness_figure, heads_figure
from probe.reports.html.filling import fill, markup
from probe.reports.html.numbers import estimate, number, percent
from probe.reports.html.terminal import listing

if TYPE_CHECKING:
    from rich.table import Table

    from probe.circuits import Circuit

_LISTED = 20
"""Edges in the page's table."""


def write_circuit_report(results: Mapping[str, Any], circuit: "Circuit", path: str | Path) -> Path:
    """Write the page.

    Args:
        results: ``results.json`` of ``probe circuits``.
    """
    figures = {
        "circuit": circuit_figure(circuit),
        "heads": heads_figure(circuit),
        "faithfulness": faithfulness_figure(results),
    }
    page = fill(
        "circuits/page.html.j2",
        None,
        results=results,
        rows=circuit_rows(results),
        edges=[(name, number(score, 4)) for name, score in circuit.listed(_LISTED)],
        figures={name: markup(figure, name) for name, figure in figures.items()},
    )
    return write_text(Path(path), page)


def circuit_rows(results: Mapping[str, Any]) -> dict[str, str]:
    """What was found: how large, how faithful, and the behaviour without the circuit's heads and without others."""
    heads = results["heads"]
    names = ", ".join(heads["heads"])
    rows = {
        "edges": f"{results['edges']} of {results['of']} ({percent(results['edges'] / results['of'])})",
        "of the metric they keep": percent(results["kept"]),
        "CPR, CMD": f"{number(results['faithfulness']['cpr'])}, {number(results['faithfulness']['cmd'])}",
    }
    for name, what in (
        ("count", f"{results['behaviour']} a rollout"),
        ("share", f"{results['behaviour']} among its sentences"),
        ("solved", "solved"),
    ):
        for side, said in (
            ("whole", "whole model"),
            ("changed", f"without {names}"),
            ("others", "without as many others of their layers"),
            ("more than others", "more than others do"),
        ):
            rows[f"{what}, {said}"] = estimate(heads[name][side], number)
    return rows


def circuit_table(results: Mapping[str, Any]) -> "Table":
    """The same for the terminal."""
    return listing(circuit_rows(results).items())

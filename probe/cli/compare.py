"""``probe compare``."""

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.common import (
    Json,
    show,
    write_json,
)


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="Folders of at least two finished runs.")],
    html: Annotated[Path | None, typer.Option(help="HTML file to which the comparison is also written.")] = None,
    json: Json = False,
) -> None:
    """Compare the arms of several runs, and test the differences.

    Each run is tested against the first, on the problems that both answered.

    Example: probe compare runs/demo/tiny-rl runs/demo/tiny-sft

    Example: probe compare runs/layer-1 runs/layer-2 --html layers.html
    """
    from probe.pipeline import compare_runs
    from probe.reports import comparison_table, differences_table, write_comparison

    found = compare_runs(runs)
    page = None if html is None else write_comparison(found, html)
    if json:
        write_json(found)
        return
    show(comparison_table(found))
    typer.echo()
    show(differences_table(found) if found["tests"] else "The runs share no problem, so no difference is tested.")
    if page is not None:
        typer.echo(f"\nPage: {page}")

"""``probe compare``."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="Folders of finished runs.")],
    html: Annotated[Path | None, typer.Option(help="Write a page of it, too.")] = None,
) -> None:
    """Put runs side by side: every arm, and tests against the first run where both answered the same problems.

    Example: probe compare runs/demo-rl runs/demo-sft

    Example: probe compare runs/layer-1 runs/layer-2 --html layers.html
    """
    from rich.console import Console

    from probe.pipeline import compare_runs
    from probe.reports import comparison_table, differences_table, write_comparison

    found = compare_runs(runs)
    console = Console()
    console.print(comparison_table(found))
    if found["tests"]:
        console.print()
        console.print(differences_table(found))
    else:
        console.print("\nThe runs answered no problem in common: differences are not tested.", highlight=False)
    if html is not None:
        console.out(f"\nPage: {write_comparison(found, html)}", highlight=False)

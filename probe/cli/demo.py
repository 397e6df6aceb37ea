"""``probe demo``."""

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.common import folder, show


def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder that gets a run for each pair; runs/demo by default.")
    ] = None,
) -> None:
    """See the whole experiment in three minutes, on two bundled pairs of small models.

    The recipe `quick` runs on both pairs at once. Findings appear as soon as they
    are known. An interrupted demo resumes when the same command is run again.

    Example: probe demo
    """
    from probe.reports import DEMO_INTRODUCTION, arms_table, demo_findings, demo_next

    out = folder(out, Path("runs") / "demo")
    typer.echo(DEMO_INTRODUCTION, err=True)
    from probe.pipeline import demo as run_demo  # slow to import

    results = run_demo(out, progress=True)
    typer.echo()
    for each in results.values():
        show(arms_table(each))
        typer.echo()
    for finding in demo_findings(results):
        show(finding)
        typer.echo()
    typer.echo(demo_next(out, results))

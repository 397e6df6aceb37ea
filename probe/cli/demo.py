"""``probe demo``."""

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.common import Quiet, folder, show


def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder that gets a run for each pair; runs/demo by default.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """See the experiment on bundled models, in three minutes.

    The recipe `quick` runs on two bundled pairs at once. Findings appear as soon
    as they are known. An interrupted demo resumes when the same command is run
    again.

    Example: probe demo
    """
    from probe.reports import DEMO_INTRODUCTION, arms_table, demo_findings, demo_next

    out = folder(out, Path("runs") / "demo")
    if not quiet:
        typer.echo(DEMO_INTRODUCTION, err=True)
    from probe.pipeline import run_demo

    results = run_demo(out, progress=not quiet)
    if quiet:
        typer.echo("\n".join(str(out / pair / "report.html") for pair in results))
        return
    for each in results.values():
        typer.echo()
        show(arms_table(each))
    for finding in demo_findings(results):
        typer.echo()
        show(finding)
    typer.echo(f"\n{demo_next(out, results)}")

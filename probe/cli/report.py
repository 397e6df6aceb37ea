"""``probe report``."""

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]) -> None:
    """Write the report of a finished run again.

    Only the files of the run are read.

    Example: probe report runs/rl
    """
    from probe.reports import write_report

    typer.echo(write_report(run))

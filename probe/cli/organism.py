"""``probe organism``."""

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.common import (
    Quiet,
    folder,
)


def organism(
    out: Annotated[Path, typer.Option(help="Folder to which the models are written.")] = Path("runs/organism"),
    seed: Annotated[int, typer.Option(help="Seed of the weights, documents, problems and samples.")] = 0,
    decoupled: Annotated[
        bool,
        typer.Option("--decoupled", help="Train tiny-decoupled from the bundled tiny-base, which takes half an hour."),
    ] = False,
    series: Annotated[
        bool,
        typer.Option(
            "--series",
            help="Train the bundled tiny-base in both ways and keep checkpoints, which takes half an hour on one core.",
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train the bundled models again, which takes a few hours.

    Writes tiny-base, tiny-rl and tiny-sft with their cards and the figures that
    show how they differ. An interrupted command resumes when it is run again.

    With --decoupled, trains the model in which cue words do not reveal the state,
    and tests the falsification cards on it. With --series, writes
    rl/checkpoint-STEP and sft/checkpoint-STEP, checkpoint series for probe diff.

    Example: probe organism --out runs/organism-1 --seed 1

    Example: probe organism --decoupled --out runs/decoupled-1 --seed 1

    Example: probe organism --series --out runs/series-1 --seed 1
    """
    from probe.config import check_seeds
    from probe.errors import ProbeError

    if series and decoupled:
        raise ProbeError("--series and --decoupled train different models; give one of them")
    check_seeds("--seed", [seed])
    out = folder(out, out)
    from probe.organisms import build, build_decoupled, build_series  # slow to import: settings are checked first

    if series:
        build_series(out, seed=seed, progress=not quiet)
        typer.echo(f"Checkpoints: {out}/rl and {out}/sft")
        return
    (build_decoupled if decoupled else build)(out, seed=seed, progress=not quiet)
    typer.echo(f"Models and {'figures' if decoupled else 'cards'}: {out}")

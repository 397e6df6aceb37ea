"""``probe organism``."""

from pathlib import Path
from typing import Annotated

import typer


def organism(
    out: Annotated[Path, typer.Option(help="The folder that the models go to.")] = Path("runs/organism"),
    seed: Annotated[int, typer.Option(help="Of weights, documents, problems and samples.")] = 0,
    decoupled: Annotated[
        bool, typer.Option("--decoupled", help="Make tiny-decoupled from the bundled tiny-base instead: half an hour.")
    ] = False,
    series: Annotated[
        bool,
        typer.Option(
            "--series", help="Train the bundled tiny-base in both ways and keep checkpoints: half an hour on one core."
        ),
    ] = False,
) -> None:
    """Make the bundled models again, from nothing: a few hours on two cores.

    Writes tiny-base, tiny-rl and tiny-sft with their cards and the figures that prove what they differ in. With
    --decoupled: the model in which cue words and state come apart, and what the falsification cards say of it. With
    --series: rl/checkpoint-STEP and sft/checkpoint-STEP, a series for probe diff.
    Stop it at any time: the same command goes on.

    Example: probe organism --out runs/organism-1 --seed 1

    Example: probe organism --decoupled --out runs/decoupled-1 --seed 1

    Example: probe organism --series --out runs/series-1 --seed 1
    """
    from probe.errors import ProbeError
    from probe.organisms import build, build_decoupled, build_series

    if series and decoupled:
        raise ProbeError("--series and --decoupled make different models: give one of them")
    if series:
        build_series(out, seed=seed, progress=True)
        typer.echo(f"Checkpoints: {out}/rl and {out}/sft")
        return
    (build_decoupled if decoupled else build)(out, seed=seed, progress=True)
    typer.echo(f"Models and {'figures' if decoupled else 'cards'}: {out}")

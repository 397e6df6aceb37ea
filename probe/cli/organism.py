"""``probe organism``."""

from pathlib import Path
from typing import Annotated

import typer


def organism(
    out: Annotated[Path, typer.Option(help="The folder that the models go to.")] = Path("runs/organism"),
    seed: Annotated[int, typer.Option(help="Of weights, documents, problems and samples.")] = 0,
) -> None:
    """Make the bundled models again, from nothing: a few hours on two cores.

    Writes tiny-base, tiny-rl and tiny-sft with their cards and the figures that prove what they differ in.
    Stop it at any time: the same command goes on.

    Example: probe organism --out runs/organism-1 --seed 1
    """
    from probe.organisms import build

    build(out, seed=seed, progress=True)
    typer.echo(f"Models and cards: {out}")

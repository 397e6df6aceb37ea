"""``probe chat``."""

from pathlib import Path
from typing import Annotated

import typer


def chat(
    run: Annotated[Path, typer.Option(help="The folder of a run.")],
    question: Annotated[str | None, typer.Option(help="One question; without it you are asked for them.")] = None,
    arm: Annotated[
        str, typer.Option(help="Any arm of the run that decodes token by token, as oracle-free.")
    ] = "hybrid",
) -> None:
    """Ask the hybrid one question and see, token by token, where it was steered and with which behaviour.

    Example: probe chat --run runs/rl

    Example: probe chat --run runs/rl --arm oracle-free --question "Mia has 22 cards. First, Mia doubles the cards. ..."
    """
    from rich.console import Console

    from probe.pipeline import ask, experiment_at
    from probe.reports import LiveTokens

    console = Console()
    experiment = experiment_at(run)
    pair, names = experiment.stages.inputs.pair, experiment.taxonomy.names
    while True:
        asked = question or console.input("[bold]question:[/] ").strip()
        if not asked:
            return
        tokens = LiveTokens(console, pair.base.decode, names)
        for name in dict.fromkeys(("base", "thinking", arm)):
            tokens.begin(name)
            ask(experiment, name, asked, tokens.add)
            tokens.end()
        tokens.legend()
        if question:
            return

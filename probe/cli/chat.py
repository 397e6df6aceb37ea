"""``probe chat``."""

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.common import MaxNewTokensOfRun


def chat(
    run: Annotated[Path, typer.Option(help="Folder of a run.")],
    question: Annotated[
        str | None, typer.Option(help="Question to answer; without it, questions are read from the terminal.")
    ] = None,
    arm: Annotated[
        str, typer.Option(help="Arm of the run that answers; it must decode token by token, as oracle-free does.")
    ] = "hybrid",
    max_new_tokens: MaxNewTokensOfRun = None,
) -> None:
    """Ask the hybrid a question, and see where it is steered.

    Each token is shown with the behaviour towards which it was steered.

    Example: probe chat --run runs/rl

    Example: probe chat --run runs/rl --arm oracle-free --question "Mia has 22 cards. First, Mia doubles the cards. ..."
    """
    from rich.console import Console

    from probe.pipeline import check_arm, recalled

    recalled(run)
    check_arm(arm)
    from probe.pipeline import Experiment, ask, make_arm  # slow to import: settings are checked first
    from probe.reports import LiveTokens

    console = Console()
    experiment = Experiment.open(run)
    pair, names = experiment.stages.inputs.pair, experiment.taxonomy.names
    make_arm(experiment, arm)  # an unknown arm is refused before the models answer
    while True:
        try:
            asked = question if question is not None else console.input("[bold]question:[/] ").strip()
        except EOFError:  # Ctrl-D, or the end of a file of questions
            asked = ""
        if not asked:
            return
        tokens = LiveTokens(console, pair.base.decode, names)
        for name in dict.fromkeys(("base", "thinking", arm)):
            tokens.begin(name)
            ask(experiment, name, asked, tokens.add, max_new_tokens=max_new_tokens)
            tokens.end()
        tokens.legend()
        if question is not None:
            return

"""``probe hybrid``."""

from pathlib import Path
from typing import Annotated

import typer


def hybrid(
    run: Annotated[Path, typer.Option(help="The folder of a run.")],
    arms: Annotated[
        str | None, typer.Option(help="Further arms or recipes for the run and its report, as v1,v2,few-shot.")
    ] = None,
    where: Annotated[
        str,
        typer.Option(
            help="disagreement, divergence:BITS, uncertain:BITS, sentence-start:N, always, random:RATE, learned."
        ),
    ] = "disagreement",
    which: Annotated[
        str, typer.Option(help="coming, single, pooled, learned, random, one:K, least-similar.")
    ] = "coming",
    strength: Annotated[str, typer.Option(help="learned, or a number.")] = "learned",
    what: Annotated[
        str,
        typer.Option(
            help="hybrid, single-vector, mean-difference, decoder-rows, rank-1, v1, v2, token, rerank:N, fusion:WEIGHT."
        ),
    ] = "hybrid",
    problems: Annotated[int | None, typer.Option(help="How many problems. (default: as the run)")] = None,
    split: Annotated[str, typer.Option(help="validation, or test when you have done choosing.")] = "validation",
    name: Annotated[str, typer.Option(help="What your arm is called.")] = "own",
    workers: Annotated[int, typer.Option(help="Processes that run arms at the same time, with --arms.")] = 1,
) -> None:
    """Try a hybrid of your own parts on a finished run, or add arms and recipes to it.

    Nothing before the arms is done again: traces, behaviours and vectors are the run's.

    Example: probe hybrid --run runs/rl --where sentence-start:1 --what mean-difference --strength 2

    Example: probe hybrid --run runs/rl --arms v1,v2
    """
    from dataclasses import replace

    from rich.console import Console

    from probe.pipeline import experiment_at, open_run, own_arm, run as run_pipeline, try_arm
    from probe.reports import arms_table, own_table

    console = Console()
    if arms is not None:
        config = replace(open_run(run, tuple(arms.split(","))), workers=workers)
        console.print(arms_table(run_pipeline(config, run, progress=True)))
        console.out(f"\nReport:  {run / 'report.html'}", highlight=False)
        return
    experiment = experiment_at(run, progress=True)
    made = own_arm(experiment, where, which, strength, what, name)
    described = f"{where} {which} {strength} {what}"
    console.print(own_table(try_arm(experiment, made, described, problems=problems, split=split)))
    console.out(f"\nKept in: {run / 'own'}", highlight=False)

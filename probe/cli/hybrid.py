"""``probe hybrid``."""

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.common import (
    Engine,
    MaxNewTokensOfRun,
    Quiet,
    names,
    show,
)


def hybrid(
    run: Annotated[Path, typer.Option(help="Folder of a finished run.")],
    arms: Annotated[
        str | None,
        typer.Option(help="Arms or recipes to add to the run and its report, such as v1,v2,inference,few-shot."),
    ] = None,
    where: Annotated[
        str,
        typer.Option(
            help="Tokens to steer: disagreement, divergence:BITS, uncertain:BITS, sentence-start:N, opening:N, "
            "thinking, answer, always, random:RATE or learned."
        ),
    ] = "disagreement",
    which: Annotated[
        str,
        typer.Option(help="Behaviour to add: coming, single, pooled, learned, random, one:K or least-similar."),
    ] = "coming",
    strength: Annotated[str, typer.Option(help="Strength of the vectors: learned, or a number.")] = "learned",
    what: Annotated[
        str,
        typer.Option(
            help="Mechanism: hybrid, single-vector, mean-difference, decoder-rows, rank-1, v1, v2, token, rerank:N or "
            "fusion:WEIGHT."
        ),
    ] = "hybrid",
    problems: Annotated[
        int | None, typer.Option(help="Number of problems; as many as the run used by default.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Split of the problems: validation while choosing, test only for the final measurement.")
    ] = "validation",
    max_new_tokens: MaxNewTokensOfRun = None,
    name: Annotated[str, typer.Option(help="Name of the new arm in the results.")] = "own",
    engine: Engine = None,
    quiet: Quiet = False,
) -> None:
    """Try your own hybrid on a finished run, or add arms to the run.

    The traces, behaviours and vectors of the run are used as they are.

    Example: probe hybrid --run runs/rl --where sentence-start:1 --what mean-difference --strength 2

    Example: probe hybrid --run runs/rl --where opening:32 --which one:0 --what token

    Example: probe hybrid --run runs/rl --arms v1,v2

    Example: probe hybrid --run runs/rl --arms inference
    """
    from probe.errors import ProbeError
    from probe.pipeline import check_parts, recalled, with_arms

    config, _ = recalled(run)
    wanted = names(arms)
    if max_new_tokens is not None and wanted is not None:
        raise ProbeError("--max-new-tokens is for a hybrid of your own parts; all arms of a run have the run's limit")
    if engine is not None and wanted is None:
        raise ProbeError("--engine is for --arms; a hybrid of your own parts is decoded here")
    if wanted is not None:
        with_arms(config, wanted)
    else:
        check_parts(where, which, strength, what, name, split)
    from probe.pipeline import Experiment, add_arms, own_arm, try_arm  # slow to import: settings are checked first
    from probe.reports import arms_table, own_table

    if wanted is not None:
        found = add_arms(run, wanted, engine=engine, progress=not quiet)
        show(arms_table(found), f"Report:  {run / 'report.html'}", quiet=quiet)
        return
    experiment = Experiment.open(run, progress=not quiet)
    made = own_arm(experiment, where, which, strength, what, name)
    described = f"{where} {which} {strength} {what}"
    found = try_arm(experiment, made, described, n=problems, split=split, max_new_tokens=max_new_tokens)
    show(own_table(found), f"Kept in: {run / 'own'}", quiet=quiet)

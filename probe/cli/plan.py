"""``probe plan``."""

from typing import Annotated

import typer

from probe.cli.common import Config, Device, Dtype, Pair, settings, show


def plan(
    pair: Pair = None,
    base: Annotated[
        str | None, typer.Option(help="Folder or hub id of the base model; give it with --thinking, without --pair.")
    ] = None,
    thinking: Annotated[
        str | None, typer.Option(help="Folder or hub id of the thinking model; give it with --base, without --pair.")
    ] = None,
    config: Config = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Expected tokens of a trace; the limit on new tokens by default.")
    ] = None,
    traces: Annotated[int | None, typer.Option(min=1, help="Number of train traces; 400 by default.")] = None,
    memory: Annotated[
        str | None, typer.Option(help="Memory of a device, such as 80GB; by default what is free there is measured.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Load both models and measure how fast they are, for the time.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Write the plan as JSON.")] = False,
) -> None:
    """Say what `probe run` will need: passes, memory, disk and time of each stage, and whether it fits.

    Only the configs of the models are read, no weights.
    Columns: tokens through each model, memory beside the weights, disk, time.

    Example: probe plan --pair tiny-rl

    Example: probe plan --base org/base --thinking org/name --dtype bfloat16 --tokens 2000 --memory 80GB
    """
    from probe.pipeline import RunConfig, as_bytes

    given = {
        "pair": pair,
        "base": {"path": base},
        "thinking": {"path": thinking},
        "device": device,
        "dtype": dtype,
        "sizes": {"train": traces},
    }
    chosen, room = settings(RunConfig, config, given), None if memory is None else as_bytes(memory)
    from probe.pipeline import plan as make_plan  # slow to import: mistakes are named before
    from probe.reports import terminal_table

    made = make_plan(chosen, tokens=tokens, memory=room, calibrate=calibrate)
    if json:
        from json import dumps

        typer.echo(dumps(made.as_dict(), indent=1))
        return
    show(terminal_table(made.columns, made.rows()))
    typer.echo()
    for sentence in made.sentences():
        typer.echo(sentence)

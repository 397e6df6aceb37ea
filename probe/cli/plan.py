"""``probe plan``."""

from typing import Annotated

import typer

from probe.cli.common import (
    Base,
    BaseDevice,
    Config,
    Device,
    Dtype,
    Engine,
    Json,
    Limit,
    MaxNewTokens,
    Memory,
    Pair,
    Recipe,
    Test,
    Thinking,
    ThinkingDevice,
    Validation,
    settings,
    show,
    write_json,
)


def plan(
    pair: Pair = None,
    base: Base = None,
    thinking: Thinking = None,
    recipe: Recipe = None,
    config: Config = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Expected tokens of a trace; the limit on new tokens by default.")
    ] = None,
    train: Annotated[
        int | None, typer.Option("--train", "--traces", help="Number of train problems; 400 by default.")
    ] = None,
    validation: Validation = None,
    test: Test = None,
    limit: Limit = None,
    max_new_tokens: MaxNewTokens = None,
    device: Device = None,
    base_device: BaseDevice = None,
    thinking_device: ThinkingDevice = None,
    device_memory: Annotated[
        str | None, typer.Option(help="Memory of each device, such as 80GB; by default, the free memory is measured.")
    ] = None,
    memory: Memory = None,
    engine: Engine = None,
    dtype: Dtype = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Load both models and measure their speed, for better time estimates.")
    ] = False,
    json: Json = False,
) -> None:
    """Estimate the time, memory and disk that a run needs.

    Says for each stage what it takes, and whether the run fits. Only the configs of the models are read, no weights.

    Example: probe plan --pair tiny-rl

    Example: probe plan --base org/base --thinking org/name --dtype bfloat16 --tokens 2000 --device-memory 80GB
    """
    from probe.config import byte_size
    from probe.pipeline import RunConfig

    given = {
        "pair": pair,
        "recipe": recipe,
        "base": {"path": base},
        "thinking": {"path": thinking},
        "device": device,
        "base_device": base_device,
        "thinking_device": thinking_device,
        "memory": memory,
        "engine": engine,
        "dtype": dtype,
        "sizes": {"train": train, "validation": validation, "test": test, "limit": limit},
        "decoding": {"max_new_tokens": max_new_tokens},
    }
    chosen, room = settings(RunConfig, config, given), byte_size(device_memory)
    from probe.pipeline import plan as make_plan  # slow to import: settings are checked first
    from probe.reports import terminal_table

    made = make_plan(chosen, tokens=tokens, memory=room, calibrate=calibrate)
    if json:
        write_json(made.as_dict())
        return
    meaning = "base, thinking: tokens through each model · devices and RAM: memory besides the weights"
    show(terminal_table(made.columns, made.rows(), caption=meaning))
    typer.echo()
    for sentence in made.sentences():
        typer.echo(sentence)

"""``probe look``."""

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.common import (
    Base,
    BaseDevice,
    BasePrompt,
    BaseTemplate,
    BaseUrl,
    Config,
    Device,
    Dtype,
    Grader,
    Json,
    Look,
    MaxNewTokens,
    Memory,
    MinP,
    Pair,
    Problems,
    Quiet,
    Seed,
    Temperature,
    Thinking,
    ThinkingDevice,
    ThinkingPrompt,
    ThinkingTemplate,
    ThinkingUrl,
    TopK,
    TopP,
    member,
    names,
    only_json,
    sampled,
    settings,
    show,
    write_json,
)


def look(
    pair: Pair = None,
    base: Base = None,
    thinking: Thinking = None,
    base_prompt: BasePrompt = None,
    thinking_prompt: ThinkingPrompt = None,
    base_template: BaseTemplate = None,
    thinking_template: ThinkingTemplate = None,
    problems: Problems = None,
    grader: Grader = None,
    config: Config = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for look.json and the traces; by default nothing is kept.")
    ] = None,
    device: Device = None,
    memory: Memory = None,
    base_device: BaseDevice = None,
    thinking_device: ThinkingDevice = None,
    dtype: Dtype = None,
    thinking_url: ThinkingUrl = None,
    base_url: BaseUrl = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    seed: Seed = None,
    look: Look = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    r"""Let both models answer a few problems before a run.

    Says what is wrong with their answers to validation problems.

    Shows both prompts, accuracies, cut answers, loops, the answers that were
    found next to the known ones, and what to change. All problems are answered
    at once if memory allows, so a look takes about as long as the longest answer.
    `probe run` starts with the same look.

    The exit code is 1 if a run would stop.

    Example: probe look --pair tiny-rl

    Example: probe look --base ./base --thinking org/name --base-prompt "Q: {question}\nA:" --problems mine.jsonl
    """
    from probe.pipeline import RunConfig

    given = {
        "pair": pair,
        "base": member("base", base, base_prompt, base_template),
        "thinking": member("thinking", thinking, thinking_prompt, thinking_template),
        "problems": problems,
        "grader": grader,
        "device": device,
        "memory": memory,
        "base_device": base_device,
        "thinking_device": thinking_device,
        "dtype": dtype,
        "thinking_url": names(thinking_url),
        "base_url": names(base_url),
        "decoding": {
            "max_new_tokens": max_new_tokens,
            **dict.fromkeys(("base", "thinking"), sampled(temperature, top_p, top_k, min_p)),
        },
        "seed": seed,
        "look": look,
    }
    chosen = settings(RunConfig, config, given)
    from probe.pipeline import look as look_at, stopped  # slow to import: settings are checked first
    from probe.reports import look_tables

    with only_json(json):
        found = look_at(chosen, out, progress=not quiet)
    if json:
        write_json(found)
    else:
        for table in look_tables(found):
            show(table, quiet=quiet)
        if out is not None:
            typer.echo(f"Look: {out / 'look.json'}")
    if stop := stopped(found):
        typer.echo(f"probe: {stop}", err=True)
        raise typer.Exit(1)

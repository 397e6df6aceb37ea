"""``probe run``."""

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.common import (
    Anyway,
    Base,
    BaseDevice,
    BasePrompt,
    BaseTemplate,
    BaseUrl,
    Config,
    Device,
    Dtype,
    Engine,
    FromTraces,
    Grader,
    Json,
    Limit,
    Look,
    MaxNewTokens,
    Memory,
    MinP,
    Pair,
    Problems,
    Quiet,
    Recipe,
    Seed,
    Temperature,
    Test,
    Thinking,
    ThinkingDevice,
    ThinkingPrompt,
    ThinkingTemplate,
    ThinkingUrl,
    TopK,
    TopP,
    Train,
    Validation,
    folder,
    member,
    names,
    numbers,
    only_json,
    sampled,
    settings,
    show,
    write_json,
)


def run(
    pair: Pair = None,
    base: Base = None,
    thinking: Thinking = None,
    base_prompt: BasePrompt = None,
    thinking_prompt: ThinkingPrompt = None,
    base_template: BaseTemplate = None,
    thinking_template: ThinkingTemplate = None,
    problems: Problems = None,
    grader: Grader = None,
    traces: FromTraces = None,
    train: Train = None,
    validation: Validation = None,
    test: Test = None,
    limit: Limit = None,
    recipe: Recipe = None,
    config: Config = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME by default.")] = None,
    device: Device = None,
    memory: Memory = None,
    base_device: BaseDevice = None,
    thinking_device: ThinkingDevice = None,
    dtype: Dtype = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    samples: Annotated[
        int | None, typer.Option(help="Number of sampled answers to each test problem; accuracies are means over them.")
    ] = None,
    seed: Seed = None,
    engine: Engine = None,
    look: Look = None,
    anyway: Anyway = False,
    thinking_url: ThinkingUrl = None,
    base_url: BaseUrl = None,
    curve: Annotated[
        str | None,
        typer.Option(help="Also draw a learning curve over these numbers of train traces, such as 60,150,400."),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    r"""Measure how much of the gap a steered base model recovers.

    The gap is the advantage of the thinking model over its base model.

    First, both models answer a few validation problems (see `probe look`). The
    run stops if their answers show that it could not measure anything.

    Generates traces, finds behaviours, learns vectors, decodes the hybrid with
    every control, and writes a report.
    An interrupted run resumes when the same command is run again.

    If a problem set has fewer problems than --train, --validation and --test ask
    for, all of them are used. A set with one split is divided by a hash.

    Without a prompt, the thinking model is asked by its chat template, and the
    base model by "Answer the following question: ..."; the first prompt of each
    is shown.

    Example: probe run --pair tiny-rl --out runs/rl

    Example: probe run --pair orz-1.5b --recipe v2-published

    Example: probe run --pair orz-1.5b --problems mine.jsonl --limit 20 --max-new-tokens 1000

    Example: probe run --pair tiny-rl --temperature 0.7 --top-p 0.95 --samples 4

    Example: probe run --pair orz-1.5b --traces imported/orz

    Example: probe run --base ./base --thinking org/name --base-prompt "Q: {question}\nA:" --problems mine.jsonl

    Example: probe run --base org/name --thinking org/name --base-template enable_thinking=false --problems mine.jsonl
    """
    from probe.pipeline import RunConfig

    given = {
        "pair": pair,
        "recipe": recipe,
        "base": member("base", base, base_prompt, base_template),
        "thinking": member("thinking", thinking, thinking_prompt, thinking_template),
        "problems": problems,
        "grader": grader,
        "traces": traces,
        "device": device,
        "base_device": base_device,
        "thinking_device": thinking_device,
        "memory": memory,
        "dtype": dtype,
        "sizes": {"train": train, "validation": validation, "test": test, "limit": limit},
        "decoding": {
            "max_new_tokens": max_new_tokens,
            **dict.fromkeys(("base", "thinking"), sampled(temperature, top_p, top_k, min_p)),
            "samples": samples,
        },
        "seed": seed,
        "engine": engine,
        "look": look,
        "anyway": anyway or None,
        "thinking_url": names(thinking_url),
        "base_url": names(base_url),
        "curve": numbers(curve, "--curve"),
    }
    chosen = settings(RunConfig, config, given)
    out = folder(out, Path("runs") / chosen.name)
    from probe.pipeline import run as run_pipeline  # slow to import: settings are checked first
    from probe.reports import arms_table, curve_table

    with only_json(json):
        results = run_pipeline(chosen, out, progress=not quiet)
    if json:
        write_json(results)
        return
    if results.get("curve") and not quiet:
        show(curve_table(results))
    show(arms_table(results), f"Results: {out / 'results.json'}", f"Report:  {out / 'report.html'}", quiet=quiet)

"""``probe anchors``."""

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.common import (
    Config,
    Device,
    Dtype,
    Grader,
    Memory,
    MinP,
    Pair,
    Problems,
    Quiet,
    Seed,
    Temperature,
    ThinkingAlone,
    ThinkingPrompt,
    ThinkingTemplate,
    TopK,
    TopP,
    folder,
    member,
    names,
    sampled,
    settings,
    show,
)


def anchors(
    pair: Pair = None,
    thinking: ThinkingAlone = None,
    thinking_prompt: ThinkingPrompt = None,
    thinking_template: ThinkingTemplate = None,
    model: Annotated[
        str | None, typer.Option(help="Model of the pair that continues: thinking or base; thinking by default.")
    ] = None,
    problems: Problems = None,
    grader: Grader = None,
    traces: Annotated[
        str | None,
        typer.Option(
            help="Folder of `probe traces import`: its traces are continued; by default the model writes a trace of "
            "each problem."
        ),
    ] = None,
    rollouts: Annotated[
        str | None,
        typer.Option(help="Folder of rollouts as in math-rollouts, which need no model, so no --pair."),
    ] = None,
    problem: Annotated[str | None, typer.Option(help="Id of one problem; the first ones by default.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of traces; 1 by default.")] = None,
    samples: Annotated[
        int | None, typer.Option(min=2, help="Number of rollouts in place of each sentence; 100 by default.")
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="Maximum number of tokens of a trace and of a rollout; the limit of the pair by default."
        ),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            help="What to measure, commas separate several: counterfactual (default), resilience, forced, critical."
        ),
    ] = None,
    every: Annotated[
        int | None, typer.Option(min=1, help="Force an answer after every so many sentences; 1 by default.")
    ] = None,
    chains: Annotated[
        int | None, typer.Option(min=2, help="Number of chains of each sentence for resilience; 10 by default.")
    ] = None,
    behaviour: Annotated[
        list[str] | None,
        typer.Option(
            help="Behaviour to average over, once for each: a sentence type, a counter SCHEME:NAME, or with --run a "
            "category; all by default."
        ),
    ] = None,
    run: Annotated[str | None, typer.Option(help="Folder of a run, whose categories are averaged over.")] = None,
    sentence: Annotated[
        list[str] | None, typer.Option(help="Regular expression of sentences to average over, once for each.")
    ] = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    thinking_url: Annotated[
        str | None,
        typer.Option(
            help="Addresses of OpenAI-compatible servers of the model that write the rollouts, such as "
            "http://localhost:8000/v1; commas separate several."
        ),
    ] = None,
    export: Annotated[bool, typer.Option("--export", help="Also write the rollouts as math-rollouts does.")] = False,
    config: Config = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; runs/anchors by default.")] = None,
    device: Device = None,
    memory: Memory = None,
    dtype: Dtype = None,
    seed: Seed = None,
    quiet: Quiet = False,
) -> None:
    """Find the sentences of a trace that its answer depends on.

    In place of each sentence, the model writes other sentences and continues to
    an answer. A sentence matters if these answers differ from the answers that
    follow it. No known answer is needed. Finished places are kept: the same
    command resumes.

    Example: probe anchors --pair tiny-rl --samples 20 --out runs/anchors

    Example: probe anchors --thinking org/name --problems gsm8k --measure counterfactual,forced --dtype bfloat16

    Example: probe anchors --rollouts math-rollouts/deepseek-r1-distill-llama-8b --limit 20
    """
    from probe.pipeline import AnchorsConfig

    given = {
        "pair": pair,
        "thinking": member("thinking", thinking, thinking_prompt, thinking_template),
        "model": model,
        "problems": problems,
        "grader": grader,
        "traces": traces,
        "rollouts": rollouts,
        "problem": problem,
        "limit": limit,
        "samples": samples,
        "max_new_tokens": max_new_tokens,
        "measure": names(measure),
        "every": every,
        "chains": chains,
        "behaviours": behaviour or None,
        "run": run,
        "patterns": sentence or None,
        "sampling": sampled(temperature, top_p, top_k, min_p),
        "thinking_url": names(thinking_url),
        "export": export or None,
        "device": device,
        "memory": memory,
        "dtype": dtype,
        "seed": seed,
    }
    chosen = settings(AnchorsConfig, config, given)
    out = folder(out, Path("runs") / "anchors")
    from probe.pipeline import find_anchors  # slow to import: settings are checked first
    from probe.reports import anchors_table, unfinished_rollouts

    found = find_anchors(chosen, out, progress=not quiet)
    show(anchors_table(found), *unfinished_rollouts(found["counts"]), f"Report: {out / 'report.html'}", quiet=quiet)

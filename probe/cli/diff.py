"""``probe diff``."""

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.common import (
    Base,
    BasePrompt,
    BaseTemplate,
    CategoriesOf,
    Config,
    Context,
    Device,
    Dtype,
    FromTraces,
    Grader,
    MaxNewTokens,
    Memory,
    NPairs,
    Pair,
    Problems,
    Quiet,
    Seed,
    Sentence,
    Thinking,
    ThinkingPrompt,
    ThinkingTemplate,
    folder,
    member,
    settings,
    show,
)


def diff(
    pair: Pair = None,
    base: Base = None,
    thinking: Thinking = None,
    base_prompt: BasePrompt = None,
    thinking_prompt: ThinkingPrompt = None,
    base_template: BaseTemplate = None,
    thinking_template: ThinkingTemplate = None,
    problems: Problems = None,
    grader: Grader = None,
    behaviour: Annotated[
        str | None,
        typer.Option(
            help="Behaviour to follow: a sentence type such as check, a counter SCHEME:NAME, or with --run a category; "
            "by default the sentence type, or the habit where sentences have no types, that rose most in training."
        ),
    ] = None,
    sentence: Sentence = None,
    run: CategoriesOf = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="Part to compute, once for each: tokens, heads, direction, truth, knowledge, neurons, latents, "
            "difference, steering, dictionary (needs --sae) or massive; all by default."
        ),
    ] = None,
    sae: Annotated[
        str | None,
        typer.Option(help="SAE or transcoder whose latents are compared in both models: a folder, or RELEASE/SAE_ID."),
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option(
            help="Checkpoint series as NAME=FOLDER, once for each training run; runs that differ in seed share a NAME."
        ),
    ] = None,
    traces: FromTraces = None,
    train: Annotated[
        int | None, typer.Option(help="Number of train problems that the thinking model solves; 80 by default.")
    ] = None,
    test: Annotated[
        int | None, typer.Option(help="Number of test problems on which changed heads are measured; 60 by default.")
    ] = None,
    heads: Annotated[
        int | None,
        typer.Option(help="Number of heads, those that grew most, that are changed; 3 by default, 0 for none."),
    ] = None,
    n_pairs: NPairs = None,
    context: Context = None,
    max_new_tokens: MaxNewTokens = None,
    config: Config = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; runs/diff-PAIR by default.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = None,
    seed: Seed = None,
    quiet: Quiet = False,
) -> None:
    """Show what training changed inside the model.

    Compares the base model with the thinking model.

    Covers the heads that carry a behaviour and what changing them does,
    directions that transfer, where numbers are represented, entropy neurons, an
    SAE over both models, what the mean difference of their states says, massive
    activations, and divergence by token. The same command resumes; other parts,
    heads and series are added to a finished folder.

    Example: probe diff --pair tiny-rl --out runs/diff-rl

    Example: probe diff --pair tiny-rl --part heads --series rl=runs/series-0/rl --series sft=runs/series-0/sft

    Example: probe diff --base org/base --thinking org/name --problems gsm8k --sentence "Wait|Hold on"
    """
    from probe.pipeline import DiffConfig

    given = {
        "pair": pair,
        "base": member("base", base, base_prompt, base_template),
        "thinking": member("thinking", thinking, thinking_prompt, thinking_template),
        "problems": problems,
        "grader": grader,
        "behaviour": behaviour,
        "sentence": sentence,
        "run": run,
        "parts": part or None,
        "sae": sae,
        "series": series or None,
        "train": train,
        "test": test,
        "heads": heads,
        "n_pairs": n_pairs,
        "context": context,
        "device": device,
        "dtype": dtype,
        "memory": memory,
        "traces": traces,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    chosen = settings(DiffConfig, config, given)
    out = folder(out, Path("runs") / f"diff-{chosen.name}")
    from probe.pipeline import diff as run_diff  # slow to import: settings are checked first
    from probe.reports import diff_table

    found = run_diff(chosen, out, progress=not quiet)
    show(diff_table(found), f"Report: {out / 'report.html'}", quiet=quiet)

"""``probe diff``."""

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.common import Config, Device, FromTraces, MaxNewTokens, Memory, Pair, Seed, folder, settings, show


def diff(
    pair: Pair = None,
    behaviour: Annotated[
        str | None,
        typer.Option(
            help="Behaviour to follow: a sentence type such as check, a counter SCHEME:NAME, or with --run a category; "
            "the sentence type that rose most in training by default."
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Folder of a run; --behaviour may name a category of its taxonomy.")
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="Part to compute, once for each: tokens, heads, direction, truth, knowledge, neurons, latents or "
            "massive; all by default."
        ),
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option(
            help="Checkpoint series as NAME=FOLDER, once for each training run; runs that differ in seed share a NAME."
        ),
    ] = None,
    traces: FromTraces = None,
    max_new_tokens: MaxNewTokens = None,
    config: Config = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; runs/diff-PAIR by default.")] = None,
    device: Device = None,
    memory: Memory = None,
    seed: Seed = None,
) -> None:
    """Show what training changed between the base and the thinking model, each figure beside its null.

    Covers the heads that carry a behaviour and what changing them does,
    directions that transfer, where numbers are represented, entropy neurons, an
    SAE over both models, massive activations, and divergence by token.

    Example: probe diff --pair tiny-rl --out runs/diff-rl

    Example: probe diff --pair tiny-rl --part heads --series rl=runs/series-0/rl --series sft=runs/series-0/sft
    """
    from probe.pipeline import DiffConfig

    given = {
        "pair": pair,
        "behaviour": behaviour,
        "run": run,
        "parts": part or None,
        "series": series or None,
        "device": device,
        "memory": memory,
        "traces": traces,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    chosen = settings(DiffConfig, config, given)
    out = folder(out, Path("runs") / f"diff-{Path(chosen.pair).stem}")
    from probe.pipeline import diff as run_diff  # slow to import: settings are checked first
    from probe.reports import diff_table

    found = run_diff(chosen, out, progress=True)
    show(diff_table(found), f"Report: {out / 'report.html'}")

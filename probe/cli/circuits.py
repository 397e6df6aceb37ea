"""``probe circuits``."""

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
    Dtype,
    FromTraces,
    Grader,
    MaxNewTokens,
    Memory,
    NPairs,
    OneDevice,
    Pair,
    Problems,
    Quiet,
    Seed,
    Sentence,
    ThinkingAlone,
    ThinkingPrompt,
    ThinkingTemplate,
    folder,
    member,
    settings,
    show,
)


def circuits(
    pair: Pair = None,
    behaviour: Annotated[
        str | None,
        typer.Option(
            help="Behaviour to explain: a sentence type such as check, a counter SCHEME:NAME, or with --run a category."
        ),
    ] = None,
    sentence: Sentence = None,
    run: CategoriesOf = None,
    pairs: Annotated[
        str | None,
        typer.Option(help="JSONL file of text pairs in place of a behaviour: clean, corrupt, right and wrong."),
    ] = None,
    base: Base = None,
    thinking: ThinkingAlone = None,
    base_prompt: BasePrompt = None,
    thinking_prompt: ThinkingPrompt = None,
    base_template: BaseTemplate = None,
    thinking_template: ThinkingTemplate = None,
    problems: Problems = None,
    grader: Grader = None,
    traces: FromTraces = None,
    model: Annotated[
        str | None, typer.Option(help="Model whose circuit is found: thinking or base; thinking by default.")
    ] = None,
    train: Annotated[
        int | None, typer.Option(help="Number of train problems whose traces give the text pairs; 150 by default.")
    ] = None,
    test: Annotated[
        int | None,
        typer.Option(help="Number of test problems on which heads are ablated; 100 by default, 0 for pairs alone."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Attribution method: eap, eap-ig-inputs, eap-ig-activations or exact; eap-ig-inputs by default."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Number of steps of integrated gradients; 8 by default.")] = None,
    window: Annotated[
        int | None,
        typer.Option(help="Number of last tokens of each text whose edges are scored and cut; all by default."),
    ] = None,
    n_pairs: NPairs = None,
    context: Context = None,
    sae: Annotated[
        list[str] | None,
        typer.Option(
            help="SAE or transcoder whose latents are scored too: a folder, or RELEASE/SAE_ID of SAELens. Repeatable."
        ),
    ] = None,
    heads: Annotated[int | None, typer.Option(help="Number of top heads that are ablated; 3 by default.")] = None,
    ablation: Annotated[str | None, typer.Option(help="Ablation: resample, mean or zero; resample by default.")] = None,
    max_new_tokens: MaxNewTokens = None,
    config: Config = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; runs/circuit-BEHAVIOUR by default.")] = None,
    device: OneDevice = None,
    memory: Memory = None,
    dtype: Dtype = None,
    seed: Seed = None,
    quiet: Quiet = False,
) -> None:
    """Find and test the circuit that makes a model begin a behaviour.

    A circuit is a set of edges between heads and MLPs.

    Scores edges by integrated gradients or exactly, measures faithfulness on
    pairs that were not used to choose the circuit, and compares rollouts without
    the circuit's heads with rollouts without other heads of the same layers.
    An interrupted command resumes when it is run again.

    Example: probe circuits --pair tiny-rl --behaviour check --out runs/circuit-check

    Example: probe circuits --thinking org/name --problems gsm8k --sentence 'Wait|Hold on'

    Example: probe circuits --thinking org/name --problems gsm8k --run runs/name-behaviours --behaviour 3

    Example: probe circuits --pair tiny-rl --behaviour check --sae runs/sae
    """
    from probe.pipeline import CircuitConfig

    given = {
        "pair": pair,
        "behaviour": behaviour,
        "sentence": sentence,
        "run": run,
        "pairs": pairs,
        "base": member("base", base, base_prompt, base_template),
        "thinking": member("thinking", thinking, thinking_prompt, thinking_template),
        "problems": problems,
        "grader": grader,
        "model": model,
        "train": train,
        "test": test,
        "method": method,
        "steps": steps,
        "window": window,
        "n_pairs": n_pairs,
        "context": context,
        "sae": sae or None,
        "heads": heads,
        "ablation": ablation,
        "device": device,
        "memory": memory,
        "dtype": dtype,
        "traces": traces,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    chosen = settings(CircuitConfig, config, given)
    out = folder(out, Path("runs") / f"circuit-{chosen.name}")
    from probe.pipeline import find_circuit  # slow to import: settings are checked first
    from probe.reports import circuit_table

    found = find_circuit(chosen, out, progress=not quiet)
    show(circuit_table(found), f"Report: {out / 'report.html'}", quiet=quiet)

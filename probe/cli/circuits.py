"""``probe circuits``."""

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.common import Config, FromTraces, MaxNewTokens, Memory, OneDevice, Pair, Seed, folder, settings, show


def circuits(
    pair: Pair = None,
    behaviour: Annotated[
        str | None,
        typer.Option(
            help="Behaviour to explain: a sentence type such as check, a counter SCHEME:NAME, or with --run a category."
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Folder of a run; --behaviour may name a category of its taxonomy.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model whose circuit is found: thinking or base; thinking by default.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Attribution method: eap, eap-ig-inputs, eap-ig-activations or exact; eap-ig-inputs by default."
        ),
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="Number of last tokens of each text whose edges are scored; all by default.")
    ] = None,
    pairs: Annotated[int | None, typer.Option(help="Maximum number of text pairs; 48 by default.")] = None,
    heads: Annotated[int | None, typer.Option(help="Number of top heads that are ablated; 3 by default.")] = None,
    ablation: Annotated[str | None, typer.Option(help="Ablation: resample, mean or zero; resample by default.")] = None,
    traces: FromTraces = None,
    max_new_tokens: MaxNewTokens = None,
    config: Config = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; runs/circuit-BEHAVIOUR by default.")] = None,
    device: OneDevice = None,
    memory: Memory = None,
    seed: Seed = None,
) -> None:
    """Find the edges between heads and MLPs that make a model begin a behaviour, and test them.

    Scores edges by integrated gradients or exactly, measures faithfulness on
    pairs that were not used to choose the circuit, and compares rollouts without
    the circuit's heads with rollouts without other heads of the same layers.

    Example: probe circuits --pair tiny-rl --behaviour check --out runs/circuit-check
    """
    from probe.pipeline import CircuitConfig

    given = {
        "pair": pair,
        "behaviour": behaviour,
        "run": run,
        "model": model,
        "method": method,
        "window": window,
        "pairs": pairs,
        "heads": heads,
        "ablation": ablation,
        "device": device,
        "memory": memory,
        "traces": traces,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    chosen = settings(CircuitConfig, config, given)
    out = folder(out, Path("runs") / f"circuit-{chosen.behaviour.replace(':', '-')}")
    from probe.pipeline import find_circuit  # slow to import: settings are checked first
    from probe.reports import circuit_table

    found = find_circuit(chosen, out, progress=True)
    show(circuit_table(found), f"Report: {out / 'report.html'}")

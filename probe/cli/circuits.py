"""``probe circuits``."""

from pathlib import Path
from typing import Annotated

import typer


def circuits(
    pair: Annotated[str | None, typer.Option(help="A bundled pair (`probe pairs`) or your own pair.yaml.")] = None,
    behaviour: Annotated[str | None, typer.Option(help="A type of sentence of its problem set, as check.")] = None,
    model: Annotated[str | None, typer.Option(help="Whose circuit: thinking or base. (default: thinking)")] = None,
    method: Annotated[
        str | None, typer.Option(help="eap, eap-ig-inputs, eap-ig-activations, exact. (default: eap-ig-inputs)")
    ] = None,
    pairs: Annotated[int | None, typer.Option(help="Pairs of texts, at most. (default: 48)")] = None,
    heads: Annotated[int | None, typer.Option(help="Strongest heads that are ablated. (default: 3)")] = None,
    ablation: Annotated[str | None, typer.Option(help="resample, mean or zero. (default: resample)")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings in YAML; options given here win.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder. (default: runs/circuit-BEHAVIOUR)")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps. (default: auto)")] = None,
    seed: Annotated[int | None, typer.Option(help="Draws pairs and control heads. (default: 0)")] = None,
) -> None:
    """Find the edges between heads and MLPs that make a model begin a behaviour, and test them.

    Scores by integrated gradients or exactly, faithfulness on pairs that nothing was chosen on, and rollouts without
    the circuit's heads beside rollouts without others of the same layers.

    Example: probe circuits --pair tiny-rl --behaviour check --out runs/circuit-check
    """
    from rich.console import Console

    from probe.cli.run import merge
    from probe.config import from_dict, read_yaml
    from probe.pipeline import CircuitConfig, find_circuit
    from probe.reports import circuit_table

    given = {
        "pair": pair,
        "behaviour": behaviour,
        "model": model,
        "method": method,
        "pairs": pairs,
        "heads": heads,
        "ablation": ablation,
        "device": device,
        "seed": seed,
    }
    settings = from_dict(CircuitConfig, merge(read_yaml(config) if config else {}, given), str(config or ""))
    folder = out or Path("runs") / f"circuit-{settings.behaviour}"
    found = find_circuit(settings, folder, progress=True)
    console = Console()
    console.print(circuit_table(found))
    console.out(f"\nReport: {folder / 'report.html'}", highlight=False)

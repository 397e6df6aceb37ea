"""``probe diff``."""

from pathlib import Path
from typing import Annotated

import typer


def diff(
    pair: Annotated[str | None, typer.Option(help="A bundled pair (`probe pairs`) or your own pair.yaml.")] = None,
    behaviour: Annotated[
        str | None, typer.Option(help="A type of sentence, as check. (default: the one that rose most)")
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(help="tokens, heads, direction, truth, knowledge, neurons, latents, massive. (default: all)"),
    ] = None,
    series: Annotated[
        list[str] | None, typer.Option(help="Checkpoints as NAME=FOLDER; once for every run, seeds under one NAME.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings in YAML; options given here win.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder. (default: runs/diff-PAIR)")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps. (default: auto)")] = None,
    seed: Annotated[int | None, typer.Option(help="Draws texts, pairs and control heads. (default: 0)")] = None,
) -> None:
    """Tell what training changed between the base and the thinking model, each figure beside its null.

    Heads that carry a behaviour, before and after, and what the model does when they are changed; directions carried
    over; where numbers are held; entropy neurons; an SAE over both models; massive activations; divergence by token.

    Example: probe diff --pair tiny-rl --out runs/diff-rl

    Example: probe diff --pair tiny-rl --part heads --series rl=runs/series-0/rl --series sft=runs/series-0/sft
    """
    from rich.console import Console

    from probe.cli.run import merge
    from probe.config import from_dict, read_yaml
    from probe.pipeline import DiffConfig, diff as tell
    from probe.reports import diff_table

    given = {
        "pair": pair,
        "behaviour": behaviour,
        "parts": part or None,
        "series": series or None,
        "device": device,
        "seed": seed,
    }
    settings = from_dict(DiffConfig, merge(read_yaml(config) if config else {}, given), str(config or ""))
    folder = out or Path("runs") / f"diff-{Path(settings.pair).stem}"
    found = tell(settings, folder, progress=True)
    console = Console()
    console.print(diff_table(found))
    console.out(f"\nReport: {folder / 'report.html'}", highlight=False)

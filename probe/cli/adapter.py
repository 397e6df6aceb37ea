"""``probe adapter``: tune, attach, export."""

from pathlib import Path
from typing import Annotated

import typer

adapter = typer.Typer(
    help="Train a LoRA through an SAE, see what it does, take it elsewhere.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@adapter.command()
def tune(
    out: Annotated[Path, typer.Option(help="The adapter's folder.")],
    run: Annotated[
        str | None, typer.Option(help="A run: its base model, its thinking model's traces, its taxonomy's SAE.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Or a model of your own: a folder or a hub id,")] = None,
    texts: Annotated[str | None, typer.Option(help="and a JSONL file with text (and prompt).")] = None,
    sae: Annotated[str | None, typer.Option(help="An SAE's folder, of SAELens or sparsify.")] = None,
    site: Annotated[str | None, typer.Option(help="Where it reads, if its files do not say so: resid_post.12.")] = None,
    objective: Annotated[
        str | None, typer.Option(help="resa, chen, steer-distil, source-distil, feature-match, ce. (default: resa)")
    ] = None,
    insert: Annotated[
        str | None, typer.Option(help="A control in the SAE's place: noise, random-sae, shuffled-decoder, nothing.")
    ] = None,
    latents: Annotated[str | None, typer.Option(help="Of steer-distil and feature-match, as 3,17.")] = None,
    value: Annotated[float | None, typer.Option(help="To which those latents are raised.")] = None,
    steps: Annotated[int | None, typer.Option(help="At most. (default: 300)")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings in YAML; options given here win.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps. (default: auto)")] = None,
) -> None:
    """Train an adapter and verify it. Stop it at any time: the same command goes on.

    Example: probe adapter tune --run runs/demo-rl --objective resa --out runs/resa

    Example: probe adapter tune --run runs/demo-rl --objective resa --insert noise --out runs/noise
    """
    import yaml
    from rich.console import Console

    from probe._config import from_dict, read_yaml
    from probe.cli.run import merge
    from probe.pipeline import AdapterConfig, tune_adapter
    from probe.reports import verification_table

    given = {
        "run": run,
        "model": {"path": model},
        "texts": texts,
        "sae": sae,
        "site": site,
        "objective": objective,
        "insert": insert,
        "latents": None if latents is None else yaml.safe_load(f"[{latents}]"),
        "value": value,
        "tune": {"steps": steps},
        "device": device,
    }
    settings = from_dict(AdapterConfig, merge(read_yaml(config) if config else {}, given), str(config or ""))
    done, found = tune_adapter(settings, out, progress=True)
    console = Console()
    console.print(verification_table(done.history, done.cost, found))
    console.out(f"\nAdapter: {done.folder}", highlight=False)


@adapter.command()
def export(
    folder: Annotated[Path, typer.Argument(help="What `probe adapter tune` wrote.")],
    to: Annotated[str, typer.Option(help="peft, merged, gguf; several with commas.")] = "peft",
) -> None:
    """Write an adapter as others read it.

    Example: probe adapter export runs/resa --to peft,merged,gguf
    """
    from probe.pipeline.adapter import export_adapter

    for made in export_adapter(folder, to.split(",")):
        typer.echo(made)


@adapter.command()
def attach(
    folder: Annotated[Path, typer.Argument(help="What `probe adapter tune` wrote.")],
    question: Annotated[str, typer.Option(help="What the model is asked.")],
    new_tokens: Annotated[int, typer.Option(help="How far it answers.")] = 200,
) -> None:
    """Ask the model something, without its adapter and with it.

    Example: probe adapter attach runs/resa --question "Mia has 22 cards. ..."
    """
    from rich.console import Console

    from probe.pipeline.adapter import answers

    console = Console()
    for name, said in answers(folder, question, new_tokens).items():
        console.print(f"\n{name}", style="bold", highlight=False)
        console.print(said, markup=False, highlight=False)

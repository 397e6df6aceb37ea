"""``probe adapter``: tune, verify, study, attach, export."""

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
    behaviour: Annotated[
        str | None, typer.Option(help="Counted in rollouts, as story:verification; steer-distil finds its latent.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="At most. (default: 300)")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings in YAML; options given here win.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps. (default: auto)")] = None,
) -> None:
    """Train an adapter and verify it. Stop it at any time: the same command goes on. So does torchrun, on many devices.

    Example: probe adapter tune --run runs/demo-rl --objective resa --out runs/resa

    Example: probe adapter tune --run runs/demo-rl --sae runs/study/sae/sae --objective steer-distil
    --behaviour story:verification --out runs/checks
    """
    from rich.console import Console

    from probe.adapters import processes
    from probe.cli.run import merge
    from probe.config import from_dict, read_yaml
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
        "latents": None if latents is None else _numbers(latents),
        "value": value,
        "behaviour": behaviour,
        "tune": {"steps": steps},
        "device": device,
    }
    settings = from_dict(AdapterConfig, merge(read_yaml(config) if config else {}, given), str(config or ""))
    done, found = tune_adapter(settings, out, progress=True)
    if not processes().is_main:
        return
    console = Console()
    console.print(verification_table(done.history, done.cost, found))
    console.out(f"\nAdapter: {done.folder}\nReport: {out / 'report.html'}", highlight=False)


@adapter.command()
def sae(
    out: Annotated[Path, typer.Option(help="The SAE's folder.")],
    run: Annotated[str | None, typer.Option(help="A run: its base model and its thinking model's traces.")] = None,
    model: Annotated[str | None, typer.Option(help="Or a model of your own: a folder or a hub id,")] = None,
    texts: Annotated[str | None, typer.Option(help="and a JSONL file with text (and prompt).")] = None,
    site: Annotated[str | None, typer.Option(help="Where it reads. (default: the block in the middle)")] = None,
    latents: Annotated[int | None, typer.Option(help="How many. (default: eight a dimension)")] = None,
    k: Annotated[int | None, typer.Option(help="How many are active at a token. (default: 16)")] = None,
    steps: Annotated[int | None, typer.Option(help="Of training. (default: 2000)")] = None,
    own: Annotated[
        bool, typer.Option("--own", help="Also on what the model itself writes on a run's problems.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="Settings in YAML; options given here win.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps. (default: auto)")] = None,
) -> None:
    """Train an ordinary SAE on a model's states at every token, with SAELens; say how well it stands in for them.

    Example: probe adapter sae --run runs/demo-rl --site resid_post.2 --latents 512 --k 4 --own --out runs/sae
    """
    from probe.cli.run import merge
    from probe.config import from_dict, read_yaml
    from probe.pipeline import TrainSAEConfig, train_adapter_sae

    file = read_yaml(config) if config else {}
    of = {"run": run, "model": {"path": model}, "texts": texts, "device": device}
    shape = {"site": site, "latents": latents, "k": k, "steps": steps, "own": own or None}
    merged = file | {name: merge(file.get(name) or {}, given) for name, given in (("adapter", of), ("sae", shape))}
    found = train_adapter_sae(from_dict(TrainSAEConfig, merged, str(config or "")), out, progress=True)
    typer.echo(
        f"{found['latents']:,} latents at {found['site']}: {found['variance_explained']:.1%} of the variance, "
        f"KL {found['kl']:.4f} nats a token when inserted, {found['dead']:.0%} silent on the texts measured\n"
        f"SAE: {out / 'sae'}"
    )


@adapter.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="What `probe adapter tune` wrote.")],
    on: Annotated[
        str | None,
        typer.Option(help="Another model of the same shapes: what the adapter does there, beside random ones."),
    ] = None,
) -> None:
    """Measure a finished adapter anew, on texts that it was not trained on; the report is written anew, too.

    Example: probe adapter verify runs/resa

    Example: probe adapter verify runs/resa --on bundled:tiny-sft
    """
    from rich.console import Console

    from probe.files import read_json
    from probe.pipeline import verify_adapter
    from probe.reports import study_table, verification_table

    found = verify_adapter(folder, on, progress=True)
    console = Console()
    if on is not None and found is not None:
        console.print(study_table(found))
    else:
        card, history = (read_json(folder / "adapter" / f"{name}.json") for name in ("probe", "history"))
        console.print(verification_table(history, card["cost"], found))
    console.out(f"\nReport: {folder / 'report.html'}", highlight=False)


@adapter.command()
def study(
    out: Annotated[Path, typer.Option(help="The study's folder.")],
    run: Annotated[str | None, typer.Option(help="A run: its base model, traces and problems.")] = None,
    model: Annotated[str | None, typer.Option(help="Or a model of your own: a folder or a hub id,")] = None,
    texts: Annotated[str | None, typer.Option(help="and a JSONL file with text (and prompt).")] = None,
    general: Annotated[str | None, typer.Option(help="A JSONL file of other texts, to measure damage by.")] = None,
    sae: Annotated[str | None, typer.Option(help="An SAE's folder. (default: one is trained)")] = None,
    rows: Annotated[str | None, typer.Option(help="As resa,resa:noise,resa-stopped,source-distil,ce,random.")] = None,
    seeds: Annotated[str | None, typer.Option(help="As 0,1,2.")] = None,
    steps: Annotated[int | None, typer.Option(help="Of each adapter, at most. (default: 300)")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings in YAML; options given here win.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps. (default: auto)")] = None,
) -> None:
    """Train objectives and their controls on the same texts, with several seeds each, and say what each adds.

    Stop it at any time: the same command goes on. Rows and seeds may be added to a folder that is finished.

    Example: probe adapter study --run runs/demo-rl --out runs/study
    """
    from rich.console import Console

    from probe.cli.run import merge
    from probe.config import from_dict, read_yaml
    from probe.pipeline import StudyConfig, study as run_study
    from probe.reports import study_table

    file = read_yaml(config) if config else {}
    adapter = {
        "run": run,
        "model": {"path": model},
        "texts": texts,
        "general": general,
        "sae": sae,
        "tune": {"steps": steps},
        "device": device,
    }
    given = {"rows": rows and rows.split(","), "seeds": None if seeds is None else _numbers(seeds)}
    merged = merge(file, given) | {"adapter": merge(file.get("adapter") or {}, adapter)}
    settings = from_dict(StudyConfig, merged, str(config or ""))
    found = run_study(settings, out, progress=True)
    console = Console()
    console.print(study_table(found))
    console.out(f"\nReport: {out / 'report.html'}", highlight=False)


@adapter.command()
def export(
    folder: Annotated[Path, typer.Argument(help="What `probe adapter tune` wrote.")],
    to: Annotated[str, typer.Option(help="peft, merged, gguf; several with commas.")] = "peft",
) -> None:
    """Write an adapter as others read it; a fresh process reads it again and compares.

    Example: probe adapter export runs/resa --to peft,merged,gguf
    """
    from probe.files import read_json
    from probe.pipeline import export_adapter

    formats = to.split(",")
    made = export_adapter(folder, formats)
    for name, path in zip(formats, made, strict=True):
        figures = read_json(folder / "exports.json")[name]
        typer.echo(f"{path}  read again: logits differ by {figures['difference']:.1g}, of {figures['effect']:.2g}")


@adapter.command()
def attach(
    folder: Annotated[Path, typer.Argument(help="What `probe adapter tune` wrote.")],
    question: Annotated[str, typer.Option(help="What the model is asked.")],
    max_new_tokens: Annotated[int, typer.Option(help="How far it answers.")] = 200,
) -> None:
    """Ask the model something, without its adapter and with it.

    Example: probe adapter attach runs/resa --question "Mia has 22 cards. ..."
    """
    from rich.console import Console

    from probe.pipeline import answers

    console = Console()
    for name, said in answers(folder, question, max_new_tokens).items():
        console.print(f"\n{name}", style="bold", highlight=False)
        console.print(said, markup=False, highlight=False)


def _numbers(text: str) -> list[object]:
    """Numbers between commas; what is none is left for the configuration to refuse."""
    import yaml

    return yaml.safe_load(f"[{text}]")

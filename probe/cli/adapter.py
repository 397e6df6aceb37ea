"""``probe adapter``: train, verify, study, export and try SAE-tuning adapters."""

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.common import (
    Adapter,
    Config,
    Device,
    MaxNewTokensOfRun,
    Memory,
    OwnModel,
    Quiet,
    Texts,
    folder as folder_of,
    names,
    numbers,
    settings,
    show,
)

adapter = typer.Typer(
    name="adapter",
    help="Train, verify, study and export SAE-tuning adapters.\n\n"
    "An adapter is a LoRA that is trained through an SAE.\n\n"
    "Example: probe adapter tune --run runs/rl --out runs/resa",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Run = Annotated[
    str | None, typer.Option(help="Folder of a run, which gives the base model, the texts, the problems and the SAE.")
]


@adapter.command()
def tune(
    out: Annotated[Path, typer.Option(help="Folder of the adapter.")],
    run: Run = None,
    model: OwnModel = None,
    texts: Texts = None,
    sae: Annotated[
        str | None,
        typer.Option(
            help="Folder of an SAE in SAELens or sparsify format, or RELEASE/SAE_ID in SAELens' registry; by default "
            "the run's SAE."
        ),
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="Site that the SAE reads, such as resid_post.12, if its files do not name it.")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="Training objective: resa, chen, steer-distil, source-distil, feature-match or ce; resa by default."
        ),
    ] = None,
    insert: Annotated[
        str | None,
        typer.Option(help="Control to insert in place of the SAE: noise, random-sae, shuffled-decoder or nothing."),
    ] = None,
    latents: Annotated[
        str | None, typer.Option(help="Latents that steer-distil raises or feature-match compares, such as 3,17.")
    ] = None,
    value: Annotated[float | None, typer.Option(help="Activation to which --latents are raised.")] = None,
    behaviour: Annotated[
        str | None,
        typer.Option(
            help="Behaviour that is counted in rollouts: a counter such as story:verification, a category of the run's "
            "taxonomy, or a sentence type; steer-distil without --latents finds the latent for it."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Maximum number of training steps; 1000 by default.")] = None,
    max_new_tokens: MaxNewTokensOfRun = None,
    config: Config = None,
    device: Device = None,
    memory: Memory = None,
    quiet: Quiet = False,
) -> None:
    """Train an adapter and verify it.

    Interrupted training resumes when the same command is run again.
    Start the command with torchrun to train on several devices.

    Example: probe adapter tune --run runs/demo/tiny-rl --objective resa --out runs/resa

    Example: probe adapter tune --run runs/demo/tiny-rl --sae runs/study/sae/sae --objective steer-distil
    --behaviour story:verification --out runs/checks
    """
    from probe.pipeline import AdapterConfig

    given = {
        "run": run,
        "model": {"path": model},
        "texts": texts,
        "sae": sae,
        "site": site,
        "objective": objective,
        "insert": insert,
        "latents": numbers(latents, "--latents"),
        "value": value,
        "behaviour": behaviour,
        "tune": {"steps": steps},
        "max_new_tokens": max_new_tokens,
        "device": device,
        "memory": memory,
    }
    chosen, out = settings(AdapterConfig, config, given), folder_of(out, out)
    from probe.adapters import launched  # slow to import: settings are checked first
    from probe.pipeline import tune_adapter
    from probe.reports import verification_table

    accelerator = launched()
    done, found = tune_adapter(chosen, out, accelerator=accelerator, progress=not quiet)
    if accelerator is None or accelerator.is_main_process:
        table = verification_table(done.history, done.cost, found, converged=done.converged)
        show(table, f"Adapter: {done.folder}", f"Report: {out / 'report.html'}", quiet=quiet)


@adapter.command()
def sae(
    out: Annotated[Path, typer.Option(help="Folder of the SAE.")],
    run: Run = None,
    model: OwnModel = None,
    texts: Texts = None,
    site: Annotated[
        str | None, typer.Option(help="Site that the SAE reads, such as resid_post.12; the middle block by default.")
    ] = None,
    latents: Annotated[
        int | None, typer.Option(help="Number of latents; eight times the model's width by default.")
    ] = None,
    k: Annotated[int | None, typer.Option(help="Number of latents active at each token; 16 by default.")] = None,
    steps: Annotated[int | None, typer.Option(help="Maximum number of training steps; 2000 by default.")] = None,
    own: Annotated[
        bool, typer.Option("--own", help="Also train on what the model itself writes on the run's problems.")
    ] = False,
    max_new_tokens: MaxNewTokensOfRun = None,
    config: Config = None,
    device: Device = None,
    memory: Memory = None,
    quiet: Quiet = False,
) -> None:
    """Train a TopK SAE with SAELens, and measure how faithful it is.

    It is trained on the activations of a model at every token.

    Example: probe adapter sae --run runs/demo/tiny-rl --site resid_post.2 --latents 512 --k 4 --own --out runs/sae
    """
    from probe.pipeline import TrainSAEConfig

    given = {
        "adapter": {
            "run": run,
            "model": {"path": model},
            "texts": texts,
            "max_new_tokens": max_new_tokens,
            "device": device,
            "memory": memory,
        },
        "sae": {"site": site, "latents": latents, "k": k, "steps": steps, "own": own or None},
    }
    chosen, out = settings(TrainSAEConfig, config, given), folder_of(out, out)
    from probe.pipeline import train_adapter_sae  # slow to import: settings are checked first

    found = train_adapter_sae(chosen, out, progress=not quiet)
    if found.get("converged") is False:
        typer.echo("The SAE has not converged: its error was still falling at the maximum number of steps (--steps).")
    told = (
        f"{found['latents']:,} latents at {found['site']}: {found['variance_explained']:.1%} of the variance "
        f"explained, KL {found['kl']:.4f} nats a token when inserted, {found['dead']:.0%} dead on the texts measured"
    )
    show(told, f"SAE: {out / 'sae'}", quiet=quiet)


@adapter.command()
def verify(
    folder: Adapter,
    on: Annotated[
        str | None,
        typer.Option(help="Another model of the same shapes, on which the adapter is compared with random adapters."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure a finished adapter again, and write its report again.

    It is measured on texts that it was not trained on.

    Example: probe adapter verify runs/resa

    Example: probe adapter verify runs/resa --on bundled:tiny-sft
    """
    from probe.pipeline import check_model, finished_adapter

    finished_adapter(folder)
    if on is not None:
        check_model(on)
    from probe.pipeline import verify_adapter  # slow to import: settings are checked first
    from probe.reports import read_adapter, study_table, verification_table

    found = verify_adapter(folder, on, progress=not quiet)
    if on is not None and found is not None:
        table = study_table(found)
    else:
        told = read_adapter(folder)
        converged = told["card"].get("converged", True)
        table = verification_table(told["history"], told["cost"], found, converged=converged)
    show(table, f"Report: {folder / 'report.html'}", quiet=quiet)


@adapter.command()
def study(
    out: Annotated[Path, typer.Option(help="Folder of the study.")],
    run: Run = None,
    model: OwnModel = None,
    texts: Texts = None,
    general: Annotated[
        str | None, typer.Option(help="JSONL file of other texts, on which damage to the model is measured.")
    ] = None,
    sae: Annotated[str | None, typer.Option(help="Folder of an SAE; a new one is trained by default.")] = None,
    rows: Annotated[
        str | None,
        typer.Option(help="Objectives and controls to train, such as resa,resa:noise,ce,random."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds, such as 0,1,2.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Maximum number of training steps of each adapter; 1000 by default.")
    ] = None,
    max_new_tokens: MaxNewTokensOfRun = None,
    config: Config = None,
    device: Device = None,
    memory: Memory = None,
    quiet: Quiet = False,
) -> None:
    """Compare objectives and their controls, with several seeds.

    All are trained on the same texts.

    An interrupted study resumes when the same command is run again.
    Rows and seeds can be added to a finished study.

    Example: probe adapter study --run runs/demo/tiny-rl --out runs/study
    """
    from probe.pipeline import StudyConfig

    given = {
        "adapter": {
            "run": run,
            "model": {"path": model},
            "texts": texts,
            "general": general,
            "sae": sae,
            "tune": {"steps": steps},
            "max_new_tokens": max_new_tokens,
            "device": device,
            "memory": memory,
        },
        "rows": names(rows),
        "seeds": numbers(seeds, "--seeds"),
    }
    chosen, out = settings(StudyConfig, config, given), folder_of(out, out)
    from probe.pipeline import study as run_study  # slow to import: settings are checked first
    from probe.reports import study_table

    found = run_study(chosen, out, progress=not quiet)
    show(study_table(found), f"Report: {out / 'report.html'}", quiet=quiet)


@adapter.command()
def export(
    folder: Adapter,
    to: Annotated[str, typer.Option(help="Formats to write, separated by commas: peft, merged or gguf.")] = "peft",
) -> None:
    """Export an adapter for other software, and check the export.

    A fresh process loads the export and compares it with the original.

    Example: probe adapter export runs/resa --to peft,merged,gguf
    """
    from probe.files import read_json
    from probe.pipeline import check_formats, finished_adapter

    formats = names(to) or []
    check_formats(formats)
    finished_adapter(folder)
    from probe.pipeline import export_adapter  # slow to import: settings are checked first

    made = export_adapter(folder, formats)
    for name, path in zip(formats, made, strict=True):
        figures = read_json(folder / "exports.json")[name]
        differ, effect = figures["difference"], figures["effect"]
        typer.echo(f"{path}  re-loaded: logits differ by {differ:.1g}, the adapter changes them by {effect:.2g}")


@adapter.command()
def attach(
    folder: Adapter,
    question: Annotated[str, typer.Option(help="Question for the model.")],
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "--new-tokens", help="Maximum number of tokens in the answer.")
    ] = 200,
) -> None:
    """Ask the model a question, without its adapter and with it.

    Example: probe adapter attach runs/resa --question "Mia has 22 cards. ..."
    """
    from rich.console import Console

    from probe.pipeline import finished_adapter

    finished_adapter(folder)
    from probe.pipeline import answers  # slow to import: settings are checked first

    console = Console()
    for name, said in answers(folder, question, max_new_tokens).items():
        console.print(f"\n{name}", style="bold", highlight=False)
        console.print(said, markup=False, highlight=False)

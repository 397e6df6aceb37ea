"""``probe traces``: import, show and export traces."""

from pathlib import Path
from typing import Annotated, Any

import typer

from probe.cli.common import (
    Grader,
    Quiet,
    arguments,
    line_ends,
    show,
)

traces = typer.Typer(
    name="traces",
    help="Import, show and export traces.\n\n"
    "Traces that were written elsewhere are imported; exports are for the hub.\n\n"
    "Example: probe traces import outputs.jsonl --model org/name --problems gsm8k --out imported/name",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Argument(help="Folder of `probe traces import`, or of a run.")]


@traces.command(name="import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="JSONL, JSON or Parquet file, a folder of such files, a folder saved by `datasets`, or a data set on "
            "the hub: ORG/NAME, ORG/NAME:CONFIG or ORG/NAME:CONFIG:SPLIT."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the imported traces.")],
    model: Annotated[
        str | None,
        typer.Option(help="Folder or hub id of the model that will read the traces; its weights are not loaded."),
    ] = None,
    pair: Annotated[
        str | None, typer.Option(help="Name of a pair whose thinking model will read the traces, instead of --model.")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help=r"Prompt of --model: 'chat', or a template with {question}, for records without a prompt."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="Arguments of the chat template of --model, such as enable_thinking=true; commas separate several."
        ),
    ] = None,
    problems: Annotated[
        str | None,
        typer.Option(help="Problem set that was asked, as in `probe run`; by default it is made from the records."),
    ] = None,
    grader: Grader = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Columns of records that have no known shape, such as question=q,text=out,answer=gold. Parts: "
            "question, prompt, text, thinking, content, tokens, prompt_tokens, answer, id, sample, author, "
            "finish_reason, split."
        ),
    ] = None,
    author: Annotated[
        str | None, typer.Option(help="Model that wrote the traces, if the records do not name it.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Import traces that were written elsewhere.

    The shape of the records is found: outputs of vLLM, chat completions and
    batch files, OpenThoughts, s1K, OpenR1-Math, math-rollouts, conversations,
    prompts with completions, and exports of probe. Texts are kept unchanged. If
    the model's tokenizer cannot encode a text exactly, the rollout is rejected;
    rejects.jsonl gives the reason.
    Run the same command again to restart an interrupted import.

    Example: probe traces import outputs.jsonl --model org/name --problems gsm8k --out imported/name

    Example: probe traces import open-thoughts/OpenThoughts-114k:metadata --pair r1-math-1.5b --out imported/thoughts
    """
    from probe.errors import ProbeError
    from probe.models import ModelConfig, find_pair
    from probe.pipeline import check_model
    from probe.problems import check_problems

    if (model is None) == (pair is None):
        raise ProbeError("name the model that reads the traces: --model, or --pair for its thinking model")
    if pair is not None and (prompt is not None or template is not None):
        raise ProbeError("--prompt and --template are for --model; a pair has its own prompt")
    if model is not None:
        check_model(model)
        config = ModelConfig(model, prompt=line_ends(prompt) or "", template=arguments(template, "--template") or {})
    else:
        config = find_pair(str(pair)).thinking
    if problems is not None:
        check_problems(problems)
    mapped = _columns(columns)
    from probe.models import load_without_weights  # slow to import: settings are checked first
    from probe.traces import import_traces

    done = import_traces(
        source,
        out,
        load_without_weights(config),
        problems,
        grader=grader,
        columns=mapped,
        author=author,
        progress=not quiet,
    )
    if quiet:
        typer.echo(f"Traces:  {done.folder}")
        return
    show(_table(done), f"Traces:  {done.folder}", f"Start with: probe run --traces {done.folder} ...")


@traces.command(name="show")
def show_(folder: Annotated[Path, typer.Argument(help="Folder of `probe traces import`.")]) -> None:
    """Summarise a folder of imported traces.

    Shows counts, tokens, accuracy, authors and rejects.

    Example: probe traces show imported/name
    """
    from probe.pipeline import check_traces

    check_traces(folder)
    from probe.traces import ImportedTraces

    show(_table(ImportedTraces(folder.expanduser())))


@traces.command()
def export(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="New folder of the data set.")],
    license: Annotated[
        str, typer.Option(help="Licence of the traces, by its name on the hub, such as mit or apache-2.0.")
    ] = "unknown",
) -> None:
    """Write traces as a data set for the hub.

    It has Parquet files, and a card that says how the traces were made.

    From a run, the thinking model's traces on train, validation and test
    problems are exported. `probe traces import` reads an export back unchanged.

    Example: probe traces export runs/rl --out exports/rl --license mit
    """
    from probe.pipeline import check_export

    check_export(folder, out)
    from probe.pipeline import export_traces  # slow to import: settings are checked first

    made = export_traces(folder, out, license=license)
    show(f"{made}: {sum(1 for _ in made.glob('data/*.parquet'))} Parquet files and a card, README.md")


def _columns(text: str | None) -> dict[str, str] | None:
    from probe.cli.common import names
    from probe.errors import ProbeError

    if text is None:
        return None
    found: dict[str, str] = {}
    for part in names(text) or []:
        key, sign, value = part.partition("=")
        if not (sign and key.strip() and value.strip()):
            raise ProbeError(f"--columns has {part!r}; write PART=COLUMN, such as question=q,text=out")
        found[key.strip()] = value.strip()
    return found


def _table(done: Any) -> Any:
    """A summary on one screen."""
    from probe.reports import listing

    about, counts = done.about, done.about["counts"]
    n = max(1, counts["traces"])
    accuracy = about["accuracy"]
    graded = f", {counts['not_graded']:,} not graded" if counts["not_graded"] else ""
    rows = {
        "source": f"{about['source']} ({about['shape']})",
        "problems": f"{counts['problems']:,}, graded by {about['grader']}",
        "tokens": f"{counts['tokens']:,}, {counts['tokens'] / n:,.0f} a trace",
        "correct": ("unknown" if accuracy is None else f"{accuracy:.1%}") + graded,
        "truncated": f"{counts['truncated'] / n:.1%}",
        "thinking closed": f"{counts['closed'] / n:.1%}",
        "written by": ", ".join(f"{name} ({number:,})" for name, number in about["authors"].items()),
    }
    listed = [*rows.items(), *((f"{number:,} traces", name) for name, number in about["remarks"].items())]
    if counts["rejects"]:
        listed.append(("rejected", f"{counts['rejects']:,} rollouts, see {done.folder / 'rejects.jsonl'}"))
        listed += [("", f"{number:,}: {reason}") for reason, number in list(about["reasons"].items())[:5]]
    return listing(listed, f"{counts['traces']:,} traces read by {about['model']['name']}")

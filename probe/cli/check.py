"""``probe check``."""

from typing import Annotated

import typer

from probe.cli.common import Device, Dtype, line_ends, only_json, settings, show


def check(
    model: Annotated[
        str, typer.Argument(help="Folder or hub id of a model or an adapter, GGUF file, or bundled model.")
    ],
    prompt: Annotated[
        str | None,
        typer.Option(help="Template with {question}, or 'chat' to check the chat template as that of a chat model."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    texts: Annotated[
        str | None,
        typer.Option(
            help="JSONL file of texts that the model was trained to predict, with 'text' and optionally 'prompt'; "
            "a few sentences of English by default."
        ),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            help="How attention is computed: sdpa, eager or flash_attention_2; transformers chooses by default."
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Annotated[bool, typer.Option("--json", help="Write the checks as JSON.")] = False,
) -> None:
    """Check that a model is loaded and read as it should be.

    Checks its tokens, sites, batches, caches, decoding and config.

    Each check has a verdict, the measured number with its limit, and what to do where it failed.
    The exit code is 0 if no check failed, 1 if one failed, and 2 if the model cannot be loaded.

    Example: probe check bundled:tiny-base

    Example: probe check org/name --prompt chat --dtype bfloat16 --json
    """
    from probe.pipeline import CheckConfig

    given = {
        "model": {"path": model, "prompt": line_ends(prompt), "revision": revision, "attention": attention},
        "texts": texts,
        "device": device,
        "dtype": dtype,
    }
    chosen = settings(CheckConfig, None, given)
    from probe.pipeline import run_checks  # slow to import: settings are checked first

    with only_json(json):
        done = run_checks(chosen.model, texts=chosen.texts, device=chosen.device, dtype=chosen.dtype)
    if json:
        from json import dumps

        typer.echo(dumps(done.as_dict(), indent=1))
    else:
        from probe.reports import terminal_table

        typer.echo(done.model)
        show(terminal_table(done.columns[:-1], [each.shown[:-1] for each in done], left=2))
        for sentence in done.sentences():
            typer.echo(f"\n{sentence}")
    raise typer.Exit(1 if done.failed else 0)

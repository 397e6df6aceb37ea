"""``probe sites``."""

from typing import Annotated

import typer

from probe.cli.common import show


def sites(
    model: Annotated[
        str, typer.Argument(help="Folder, hub id, GGUF file or bundled model; only its config is read, no weights.")
    ],
) -> None:
    """List every site of a model: its meaning, its place in the model, and its name in TransformerLens and nnsight.

    Example: probe sites bundled:tiny-base
    """
    from probe.pipeline import check_model

    check_model(model)
    from probe.models import site_table  # slow to import: settings are checked first
    from probe.reports import terminal_table

    found = site_table(model)
    typer.echo(found.about)
    show(terminal_table(found.columns, found.rows, left=len(found.columns)))
    typer.echo("Any other module is a site by its path: model.layers.2.mlp.act_fn, or with :input for its input.")

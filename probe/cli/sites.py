"""``probe sites``."""

from typing import Annotated

import typer

from probe.cli.common import (
    Json,
    show,
    write_json,
)


def sites(
    model: Annotated[
        str, typer.Argument(help="Folder, hub id, GGUF file or bundled model; only its config is read, no weights.")
    ],
    json: Json = False,
) -> None:
    """List the sites of a model, and their names in other libraries.

    For each kind of site: what it is, its place in the model as nnsight writes
    it, and its name in TransformerLens.

    Example: probe sites bundled:tiny-base
    """
    from probe.pipeline import check_model

    check_model(model)
    from probe.models import site_table  # slow to import: settings are checked first
    from probe.reports import terminal_table

    found = site_table(model)
    if json:
        write_json({"model": found.about, "sites": [dict(zip(found.columns, row, strict=True)) for row in found.rows]})
        return
    typer.echo(found.about)
    others = "Any other module is a site by its path: model.layers.2.mlp.act_fn, or with :input for its input."
    show(terminal_table(found.columns, found.rows, caption=others, left=len(found.columns)))

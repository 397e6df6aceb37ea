"""``probe sites``."""

from typing import Annotated

import typer


def sites(
    model: Annotated[str, typer.Argument(help="A folder, hub id, GGUF file or bundled model; no weights are read.")],
) -> None:
    """Show every site of a model: what it is, where it is, and what TransformerLens and nnsight call it.

    Example: probe sites bundled:tiny-base
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from probe.models import site_table

    found = site_table(model)
    table = Table(*found.columns, box=SIMPLE_HEAD, show_edge=False)
    for row in found.rows:
        table.add_row(*map(Text, row))
    Console().print(Text(found.about), table, sep="\n")
    typer.echo("Any other module by its path: model.layers.2.mlp.act_fn, or with :input what it is given.")

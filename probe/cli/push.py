"""``probe push``."""

from typing import Annotated

import typer

from probe.cli.common import Adapter


def push(
    folder: Adapter,
    repo: Annotated[
        str, typer.Argument(help="Hub repository ORG/NAME; it is created as private if it does not exist.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only write and list the files to upload; this needs no network.")
    ] = False,
) -> None:
    """Upload an adapter to the Hugging Face hub.

    Its weights, card, report and SAE are uploaded.

    Example: probe push runs/resa me/resa --dry-run
    """
    from probe.pipeline import finished_adapter

    finished_adapter(folder)
    from probe.pipeline import hub_folder, push_adapter  # slow to import: settings are checked first

    if not dry_run:
        typer.echo(push_adapter(folder, repo))
        return
    hub = hub_folder(folder)
    for path in sorted(path for path in hub.rglob("*") if path.is_file()):
        typer.echo(f"{path.stat().st_size:>12,}  {path.relative_to(hub)}")
    typer.echo(f"\n{hub}: these files would be uploaded to {repo}")

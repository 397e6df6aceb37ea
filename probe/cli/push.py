"""``probe push``."""

from pathlib import Path
from typing import Annotated

import typer


def push(
    folder: Annotated[Path, typer.Argument(help="What `probe adapter tune` wrote.")],
    repo: Annotated[str, typer.Argument(help="ORG/NAME on the hub; made, private, if it is not there.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only lay the folder out; needs no network.")] = False,
) -> None:
    """Upload a finished adapter to the Hugging Face hub: canonical weights, card, report, SAE.

    Example: probe push runs/resa me/resa --dry-run
    """
    from probe.pipeline import hub_folder, push_adapter

    if not dry_run:
        typer.echo(push_adapter(folder, repo))
        return
    hub = hub_folder(folder)
    for path in sorted(path for path in hub.rglob("*") if path.is_file()):
        typer.echo(f"{path.stat().st_size:>12,}  {path.relative_to(hub)}")
    typer.echo(f"\n{hub}: this would go to {repo}")

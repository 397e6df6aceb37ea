"""``probe doctor``."""

from shutil import get_terminal_size
from typing import Annotated

import typer

from probe.cli.common import only_json, write_json


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Write what was found as JSON.")] = False,
) -> None:
    """Check this installation and this machine.

    Shows what is installed, what the machine has, and what is wrong with it.

    ! marks what is wrong and says what to do about it; - marks what is optional and absent.
    The exit code is 0 if nothing is wrong, and 1 otherwise.

    Example: probe doctor
    """
    from probe.pipeline import doctor as look

    with only_json(json):
        found = look()
    if json:
        write_json(found.as_dict())
    else:
        typer.echo(found.text(get_terminal_size().columns))
    raise typer.Exit(1 if found.wrong else 0)

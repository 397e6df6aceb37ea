"""The ``probe`` command: one file for each command, which turns its options into one call.

A user's mistake (:class:`~probe.errors.ProbeError`), or a disk that cannot be read or written, gives one line on stderr
and exit code 2; Ctrl-C gives one line and
exit code 130. Each command imports the slow libraries that it needs itself, so that ``probe --help`` is quick.
"""

import errno
import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from probe import __version__
from probe.cli.adapter import adapter
from probe.cli.anchors import anchors
from probe.cli.chat import chat
from probe.cli.check import check
from probe.cli.circuits import circuits
from probe.cli.compare import compare
from probe.cli.demo import demo
from probe.cli.diff import diff
from probe.cli.discover import discover
from probe.cli.doctor import doctor
from probe.cli.hybrid import hybrid
from probe.cli.look import look
from probe.cli.organism import organism
from probe.cli.pairs import pairs
from probe.cli.plan import plan
from probe.cli.push import push
from probe.cli.report import report
from probe.cli.run import run
from probe.cli.sites import sites
from probe.cli.traces import traces
from probe.errors import ProbeError

_UsageError: Any = typer.BadParameter.__mro__[1]
"""What every wrong option raises; typer names only this subclass."""


class _OneLine(TyperGroup):
    """A command group that ends with one line where the user made a mistake or pressed Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ProbeError as error:
            typer.echo(f"probe: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from None
        except _UsageError as error:
            if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command shows its help
                raise
            usage = error.ctx.command_path if error.ctx is not None else "probe"
            typer.echo(f"probe: {' '.join(error.format_message().split())} (see {usage} --help)", err=True)
            raise typer.Exit(2) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has ended, as `head` does
                raise
            place = f"{error.filename}: " if error.filename else ""
            typer.echo(f"probe: {place}{error.strerror or ' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("probe: interrupted; run the same command again to resume", err=True)
            raise typer.Exit(130) from None


_RESEARCH = (demo, run, look, plan, hybrid, chat, compare, discover, circuits, diff, anchors)
_ABOUT = (pairs, sites, check, doctor, organism, report, push)

app = typer.Typer(
    cls=_OneLine,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (*_RESEARCH, *_ABOUT):
    app.command()(command)
app.add_typer(adapter, name="adapter")
app.add_typer(traces, name="traces")


def _version(asked: bool) -> bool:
    if asked:
        typer.echo(f"probe {__version__}")
        raise typer.Exit
    return asked


@app.callback(epilog="Example: probe run --pair tiny-rl --out runs/rl")
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Find out what training added to a thinking model: reasoning mechanisms, or only when to use them."""


def main() -> None:
    """Run the ``probe`` command."""
    # Read when torch starts its threads: waiting threads must not spin while another process wants the core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()

"""The ``probe`` command: one file for each command, which turns its options into one call.

A user's mistake (:class:`~probe.errors.ProbeError`), or a disk that cannot be read or written, gives one line on stderr
and exit code 2; Ctrl-C gives one line and exit code 130; a check that finds something wrong ends with exit code 1.
Each command imports the slow libraries that it needs itself, so that ``probe --help`` is quick.
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
from probe.cli.common import Quiet
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


_GROUPS: dict[str, tuple[Any, ...]] = {
    "Runs": (demo, run, look, plan, hybrid, chat, compare, report),
    "Behaviours": (discover,),
    "Inside the models": (circuits, anchors, diff),
    "Adapters": (adapter, push),
    "Models, traces and this machine": (pairs, sites, check, traces, doctor),
    "Bundled models": (organism,),
}
"""The commands in the order in which the help shows them."""

_FIRST = f"""\
probe {__version__}: what did training add to a thinking model?

See the whole experiment on small models that come with probe (three minutes):
  probe demo

Look at a pair of your own first; both models answer 30 problems:
  probe look --base MODEL --thinking MODEL --problems gsm8k

Estimate the time and memory that a run of it needs:
  probe plan --base MODEL --thinking MODEL

Check this installation, or a model:
  probe doctor
  probe check MODEL

All commands: probe --help       Options of one command: probe run --help"""
"""What ``probe`` alone shows; it fits on a small screen."""


class _OneLine(TyperGroup):
    """A command group that ends with one line where the user made a mistake or pressed Ctrl-C."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options before the command; without any word, say what to do first."""
        if not args and not ctx.resilient_parsing:
            typer.echo(_FIRST)
            raise typer.Exit
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """The names of the commands, in the order of the groups."""
        return [_name(command) for commands in _GROUPS.values() for command in commands]

    def get_params(self, ctx: Any) -> list[Any]:
        """The options, of which those for the shell's completion are named in the last lines of the help instead."""
        found: list[Any] = super().get_params(ctx)
        for each in found:
            if each.name in ("install_completion", "show_completion"):
                each.hidden = True
        return found

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


def _name(command: Any) -> str:
    """The name of a command, or of a group of commands."""
    return str(command.info.name) if isinstance(command, typer.Typer) else command.__name__


app = typer.Typer(
    cls=_OneLine,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group, commands in _GROUPS.items():
    for command in commands:
        if isinstance(command, typer.Typer):
            app.add_typer(command, rich_help_panel=group)
        else:
            app.command(rich_help_panel=group)(command)


def _version(asked: bool) -> bool:
    if asked:
        typer.echo(f"probe {__version__}")
        raise typer.Exit
    return asked


@app.callback(
    epilog="Example: probe run --pair tiny-rl --out runs/rl\n\n"
    "Exit codes: 0 done, 1 a check found something wrong, 2 a mistake in what was asked, 130 interrupted.\n\n"
    "To complete commands and options in your shell: probe --install-completion"
)
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Find out what training added to a thinking model: reasoning mechanisms, or only when to use them."""


def main() -> None:
    """Run the ``probe`` command."""
    # Read when torch starts its threads: waiting threads must not spin while another process wants the core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Read by Python's resource tracker, which otherwise warns about every worker process that Ctrl-C ends.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    app(prog_name="probe")

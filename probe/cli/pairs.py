"""``probe pairs``."""

from typing import TYPE_CHECKING, Annotated

import typer

from probe.cli.common import show

if TYPE_CHECKING:
    from probe.models import PairConfig


def pairs(
    name: Annotated[
        str | None, typer.Argument(help="Name or YAML file of a pair whose YAML is printed, ready to be copied.")
    ] = None,
) -> None:
    """List the bundled and the published pairs, or print the YAML of one.

    The models of published pairs are downloaded from the hub when they are first used.

    Example: probe pairs

    Example: probe pairs orz-1.5b > mine.yaml
    """
    from probe.models import find_pair, list_pairs, pair_file, parameter_counts, weights_memory
    from probe.reports import terminal_table

    if name is not None:
        memory = weights_memory(find_pair(name))
        typer.echo(pair_file(name).read_text(encoding="utf-8").rstrip())
        if memory is not None:
            typer.echo(f"# Memory of the weights in bfloat16: {_bytes(memory)}")
        return

    def row(pair: "PairConfig") -> tuple[str, ...]:
        counts, memory = parameter_counts(pair), weights_memory(pair)
        sizes = " / ".join(dict.fromkeys("–" if count is None else _short(count) for count in counts))
        source = pair.description if pair.published is None else pair.published.source
        return pair.name, sizes, "–" if memory is None else _bytes(memory), pair.problems or "–", source

    found = list_pairs()
    columns = ("pair", "parameters", "weights", "problems")
    for title, last, some in (
        ("Bundled", "what differs", [pair for pair in found if pair.published is None]),
        ("Published", "source", [pair for pair in found if pair.published is not None]),
    ):
        show(terminal_table((*columns, last), map(row, some), title=title, left=5))
        typer.echo()
    typer.echo("parameters of both models · weights: their memory in bfloat16 · problems: the default set")


def _short(count: int) -> str:
    """A number of parameters in three digits.

    >>> _short(1543714304), _short(150528)
    ('1.54B', '151k')
    """
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return str(count)


def _bytes(memory: int) -> str:
    """An amount of memory in three digits.

    >>> _bytes(6174857216)
    '6.17 GB'
    """
    return f"{_short(memory).replace('B', 'G').replace('k', ' k').replace('M', ' M').replace('G', ' G')}B"

"""``probe pairs``."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from probe.cli.common import (
    Json,
    show,
    write_json,
)

if TYPE_CHECKING:
    from probe.models import PairConfig


def pairs(
    name: Annotated[
        str | None, typer.Argument(help="Name or YAML file of a pair whose YAML is printed, ready to be copied.")
    ] = None,
    json: Json = False,
) -> None:
    """List the bundled and the published pairs, or print one as YAML.

    The models of published pairs are downloaded from the hub when they are first used.

    Example: probe pairs

    Example: probe pairs orz-1.5b > mine.yaml
    """
    from probe.models import find_pair, list_pairs, pair_file, parameter_counts, weights_memory
    from probe.reports import terminal_table

    if json:
        write_json(_facts(find_pair(name)) if name is not None else [_facts(pair) for pair in list_pairs()])
        return
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
    bundled = [pair for pair in found if pair.published is None]
    published = [pair for pair in found if pair.published is not None]
    meaning = "parameters: of both models · weights: memory in bfloat16 · problems: default"
    for title, last, some, caption in (
        ("Bundled", "what differs", bundled, None),
        ("Published", "source", published, meaning),
    ):
        show(terminal_table((*columns, last), map(row, some), title=title, caption=caption, left=5))


def _facts(pair: "PairConfig") -> dict[str, Any]:
    """What the table says of a pair, with numbers as numbers."""
    from dataclasses import asdict

    from probe.models import parameter_counts, weights_memory

    base, thinking = parameter_counts(pair)
    told = {name: value for name, value in asdict(pair).items() if value is not None}
    sizes = {"parameters": {"base": base, "thinking": thinking}, "weights": weights_memory(pair)}
    return {**told, **sizes}


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

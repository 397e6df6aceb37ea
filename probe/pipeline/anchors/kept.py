"""Rollouts in files, one for each place of a trace, so that an interrupted command loses no place that is finished."""

from collections.abc import Callable, Iterable, Sequence, Set
from pathlib import Path
from typing import NotRequired, TypedDict

from probe.anchors import Continuations
from probe.config import read_as
from probe.files import write_json

Make = Callable[[Set[int]], Iterable[tuple[int, Continuations]]]
"""Called with the indices of the places that are there already; gives the rollouts of the others, in any order."""


class _Place(TypedDict):
    kept: int
    texts: list[str]
    answers: list[str | None]
    correct: list[bool | None]
    cut: NotRequired[list[bool]]


def kept_rollouts(folder: Path, names: Sequence[int], make: Make) -> list[Continuations]:
    """The rollouts of some places, read where they are finished and made where they are not.

    Args:
        folder: the folder of the files.
        names: the number of each place in the name of its file.
        make: makes the others; each is written as soon as it comes.
    """
    files = [folder / f"{name:06d}.json" for name in names]
    for at, found in make({at for at, file in enumerate(files) if file.is_file()}):
        write_json(
            files[at],
            {
                "kept": found.kept,
                "texts": found.texts,
                "answers": found.answers,
                "correct": found.correct,
                "cut": found.cut,
            },
        )
    return [_read(file) for file in files]


def _read(file: Path) -> Continuations:
    row = read_as(_Place, file, fix="remove it and run the same command again")
    texts, answers, correct = (tuple(row[name]) for name in ("texts", "answers", "correct"))
    return Continuations(row["kept"], texts, answers, correct, cut=tuple(row.get("cut", ())))

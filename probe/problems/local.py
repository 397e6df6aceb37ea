"""Problems from a file: JSON lines or Parquet."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from probe.config import nearest
from probe.errors import ProbeError
from probe.files import read_jsonl
from probe.problems.answers import known_answer
from probe.problems.numbers import read_number
from probe.problems.problem_set import SPLITS, Problem, ProblemSet, split_of

Record = tuple[str, dict[str, Any]]
"""The place of a record, as error messages name it, and the record."""

HASHED = "split {:.0f}/{:.0f}/{:.0f} by a hash of the question".format(*(100 * share for share in SPLITS.values()))


def read_records(path: str | Path) -> Iterator[Record]:
    """Read the records of a ``.jsonl`` or ``.parquet`` file.

    Raises:
        ProbeError: if the file cannot be read, or a line is not a JSON object; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise ProbeError(f"the problem file {path} does not exist" if not path.exists() else f"{path} is not a file")
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            rows = pq.read_table(path).to_pylist()
        except pa.ArrowException as error:
            raise ProbeError(f"{path} cannot be read as a Parquet file ({str(error).splitlines()[0]})") from None
        yield from ((f"{path}, row {i}", row) for i, row in enumerate(rows))
        return
    yield from read_jsonl(path)


def set_of_records(name: str, records: Iterable[Record], grader: str | None, *, source: str) -> ProblemSet:
    """Make a problem set of records with ``question``, ``answer`` and, optionally, ``split`` and ``id``.

    Other keys are ignored. Records without a split are split by :func:`split_of`. A repeated record is dropped and
    counted in the set's note.

    Args:
        records: the records in their order.
        grader: the name of a grader; None grades as numbers if all answers are numbers, and exactly otherwise.
        source: where the records come from, as error messages name it.

    Raises:
        ProbeError: if a question or answer is missing, a split is unknown or given for some records only, a question is
            repeated with another answer, or there is no record.
    """
    splits: dict[str, list[Problem]] = {split: [] for split in SPLITS}
    met: dict[str, tuple[str, str, str]] = {}
    repeated = 0
    declared: bool | None = None
    for number, (where, record) in enumerate(records):
        question, answer = _text(record, "question", where), known_answer(_text(record, "answer", where))
        split = record.get("split")
        if declared is not None and declared != (split is not None):
            raise ProbeError(
                f"{where} has {'no' if declared else 'a'} split, unlike the lines before it; give all or none"
            )
        declared = split is not None
        if split is None:
            split = split_of(question)
        elif split not in SPLITS:
            raise ProbeError(f"{where} has the unknown split {split!r}; {nearest(str(split), SPLITS)}")
        if question in met:
            before, *same = met[question]
            if same != [answer, split]:
                raise ProbeError(f"{where} repeats the question of {before} with another answer or split; keep one")
            repeated += 1
            continue
        met[question] = where, answer, split
        splits[split].append(Problem(str(record.get("id") or f"{name}/{number}"), question, answer))
    if declared is None:
        raise ProbeError(f"{source} holds no problems; write JSON lines with 'question' and 'answer'")
    if grader is None:
        grader = "numeric" if all(_is_number(answer) for _, answer, _ in met.values()) else "exact"
    notes = ["" if declared else HASHED, f"{repeated} repeated problems dropped" if repeated else ""]
    return ProblemSet(
        name, grader, {key: tuple(value) for key, value in splits.items()}, note="; ".join(filter(None, notes))
    )


def _text(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if value is None:
        raise ProbeError(f"{where} has no {key!r}; every problem needs a question and an answer")
    if isinstance(value, bool | list | dict):
        raise ProbeError(f"{where} has {value!r} as its {key!r}; it must be text or a number")
    text = str(value).strip()
    if not text:
        raise ProbeError(f"{where} has an empty {key!r}; every problem needs a question and an answer")
    return text


def _is_number(answer: str) -> bool:
    return read_number(answer) is not None and not any(letter.isalpha() for letter in answer)


def file_set(path: str | Path, grader: str | None = None) -> ProblemSet:
    """Load the problems of a ``.jsonl`` or ``.parquet`` file; see :func:`set_of_records`."""
    path = Path(path)
    return set_of_records(path.stem, read_records(path), grader, source=str(path))

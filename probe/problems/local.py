"""Problems from a file of the user's: JSON lines or Parquet."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from probe.config import nearest
from probe.errors import ProbeError
from probe.files import read_jsonl
from probe.problems.grading import read_number
from probe.problems.problem_set import SPLITS, Problem, ProblemSet, split_of

#: A record and where it stands, as error messages say it.
Record = tuple[str, dict[str, Any]]

HASHED = "split {:.0f}/{:.0f}/{:.0f} by a hash of the question".format(*(100 * share for share in SPLITS.values()))


def read_records(path: Path) -> Iterator[Record]:
    """The records of a ``.jsonl`` or ``.parquet`` file.

    Raises:
        ProbeError: if the file cannot be read, or a line is not a JSON object, naming the line.
    """
    if not path.is_file():
        raise ProbeError(f"the problem file {path} does not exist" if not path.exists() else f"{path} is not a file")
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            rows = pq.read_table(path).to_pylist()
        except pa.ArrowException as error:
            raise ProbeError(f"{path} is not a Parquet file that can be read ({str(error).splitlines()[0]})") from None
        yield from ((f"{path}, row {i}", row) for i, row in enumerate(rows))
        return
    yield from read_jsonl(path)


def set_of_records(name: str, records: Iterable[Record], grader: str | None, *, source: str) -> ProblemSet:
    """A problem set of records with ``question``, ``answer`` and, where the source says, ``split`` and ``id``.

    Other keys are passed over. Records without a split are split by :func:`split_of`; a repeated record is dropped,
    and the note counts it. Without a grader named, answers that are all numbers are graded as numbers, others exactly.

    Raises:
        ProbeError: naming where: a question or answer missing, a split unknown or given for some records only, a
            question repeated with another answer; or if there is no record at all.
    """
    splits: dict[str, list[Problem]] = {split: [] for split in SPLITS}
    met: dict[str, tuple[str, str, str]] = {}
    repeated = 0
    declared: bool | None = None
    for number, (where, record) in enumerate(records):
        question, answer = (_text(record, key, where) for key in ("question", "answer"))
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
        raise ProbeError(f"{source} holds no problems; write one JSON object a line, with 'question' and 'answer'")
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


def file_set(path: Path, grader: str | None = None) -> ProblemSet:
    """The problems of a ``.jsonl`` or ``.parquet`` file; see :func:`set_of_records`."""
    return set_of_records(path.stem, read_records(path), grader, source=str(path))

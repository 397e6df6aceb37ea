"""Problems from a file: JSON lines or Parquet."""

import math
import os
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from probe.config import nearest
from probe.errors import ProbeError
from probe.files import read_jsonl
from probe.problems.answers import known_answer
from probe.problems.grading import find_grader, refuse_unreadable
from probe.problems.numbers import is_plain_number
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
    if not os.path.isfile(path):  # False, too, for a text that cannot be a path
        there = os.path.exists(path)
        raise ProbeError(f"{path} is not a file" if there else f"the problem file {path} does not exist")
    if path.suffix.lower() == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                i = 0
                for batch in file.iter_batches(batch_size=_AT_ONCE):
                    for row in batch.to_pylist():
                        yield f"{path}, row {i}", row
                        i += 1
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = (str(error).splitlines() or ["damaged"])[0]
            raise ProbeError(f"{path} cannot be read as a Parquet file ({reason})") from None
        return
    yield from read_jsonl(path)


_AT_ONCE = 32
"""The number of rows of a Parquet file that are in memory at once; a row may hold a long text."""


def set_of_records(name: str, records: Iterable[Record], grader: str | None, *, source: str) -> ProblemSet:
    """Make a problem set from records with ``question`` and, optionally, ``answer``, ``split``, ``id`` and ``grader``.

    ``problem`` and ``solution`` are read in place of ``question`` and ``answer``. Other keys are ignored. Records
    without a split are split by :func:`split_of`. The set's note counts repeated records, which are dropped, and
    records without an answer.

    Args:
        records: the records in their order.
        grader: the name of a grader; None takes that of the records or, without one, grades as numbers if all answers
            are numbers, and exactly otherwise.
        source: where the records come from, as error messages name it.

    Raises:
        ProbeError: if a question is missing, a split is unknown or given for some records only, a question is
            repeated with another answer, an id is repeated, the grader cannot read a known answer, or there is no
            record.
    """
    splits: dict[str, list[Problem]] = {split: [] for split in SPLITS}
    met: dict[str, tuple[str, str | None, str]] = {}
    places: dict[str, str] = {}
    repeated = 0
    declared: dict[str, bool] = {}
    named: str | None = None
    for number, (where, record) in enumerate(records):
        question, answer = _text(record, where, "question", "problem"), _answer(record, where)
        given = {key: _name(record, key, where) for key in ("split", "grader", "id")}
        for key in ("split", "grader"):
            there = declared.setdefault(key, given[key] is not None)
            if there != (given[key] is not None):
                raise ProbeError(
                    f"{where} has {'no' if there else 'a'} {key}, unlike the lines before it; give all or none"
                )
        if given["grader"] is not None:
            find_grader(given["grader"])
            if named not in (None, given["grader"]):
                raise ProbeError(f"{where} has the grader {given['grader']!r}, the lines before it {named!r}; give one")
            named = given["grader"]
        split = given["split"] or split_of(question)
        if split not in SPLITS:
            raise ProbeError(f"{where} has the unknown split {split!r}; {nearest(split, SPLITS)}")
        words = " ".join(question.split())
        if words in met:
            before, *same = met[words]
            if same != [answer, split]:
                raise ProbeError(f"{where} repeats the question of {before} with another answer or split; keep one")
            repeated += 1
            continue
        met[words] = where, answer, split
        problem = Problem(given["id"] or f"{name}/{number}", question, answer)
        if (before := places.setdefault(problem.id, where)) != where:
            raise ProbeError(f"{where}: two problems of {name} have the id {problem.id!r}, the other is {before}")
        splits[split].append(problem)
    if not met:
        raise ProbeError(f"{source} holds no problems; write JSON lines with 'question' and 'answer'")
    found = [problem for some in splits.values() for problem in some]
    known = [(_line(places[each.id], source, each), each.answer) for each in found if each.answer is not None]
    if (grader := grader or named) is None:
        grader = "numeric" if known and all(is_plain_number(answer) for _, answer in known) else "exact"
    find_grader(grader)
    refuse_unreadable(source, grader, known)
    unknown = len(found) - len(known)
    notes = [
        "" if declared["split"] else HASHED,
        f"{repeated} repeated problems dropped" if repeated else "",
        f"{unknown} of {len(found)} problems without a known answer" if unknown else "",
    ]
    return ProblemSet(
        name, grader, {key: tuple(value) for key, value in splits.items()}, note="; ".join(filter(None, notes))
    )


def _line(where: str, source: str, problem: Problem) -> str:
    line = where.removeprefix(source)
    return f"{f'line {line[1:]}' if line[:1] == ':' else line.lstrip(', ')}, id {problem.id!r}"


def _text(record: dict[str, Any], where: str, key: str, other: str) -> str:
    """The text of a record under the first of two keys that it has."""
    used = key if record.get(key) is not None or record.get(other) is None else other
    value = record.get(used)
    if value is None:
        raise ProbeError(f"{where} has no {key!r}; every problem needs one")
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ProbeError(f"{where} has {_short(value)} as its {used!r}; it must be text or a number")
    if not isinstance(value, str) and not math.isfinite(value):
        raise ProbeError(f"{where} has {value} as its {used!r}, which is no number; correct it or leave the line out")
    text = str(value).strip()
    if not text:
        left_out = "" if key == "question" else "; omit the key if the answer is not known"
        raise ProbeError(f"{where} has an empty {used!r}{left_out}")
    return text


def _answer(record: dict[str, Any], where: str) -> str | None:
    """The known answer of a record; None if it has none."""
    if record.get("answer") is None and record.get("solution") is None:
        return None
    text = _text(record, where, "answer", "solution")
    answer = known_answer(text)
    if record.get("answer") is None and answer == text and ("\n" in text or len(text) > _LONGEST):
        raise ProbeError(
            f"{where} has a solution without \\boxed{{...}} or '#### ...', so its answer is unknown; give 'answer'"
        )
    return answer


#: A longer solution is a worked one.
_LONGEST = 200


def _name(record: dict[str, Any], key: str, where: str) -> str | None:
    """The text of a record under a key that it need not have."""
    value = record.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ProbeError(
            f"{where} has {_short(value)} as its {key!r}; it must be text{' or a whole number' * (key == 'id')}"
        )
    return str(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def file_set(path: str | Path, grader: str | None = None) -> ProblemSet:
    """Load the problems of a ``.jsonl`` or ``.parquet`` file; see :func:`set_of_records`."""
    path = Path(path)
    return set_of_records(path.stem, read_records(path), grader, source=str(path))

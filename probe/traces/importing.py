"""A folder of imported traces: the traces, their problems, their source and the rejected rollouts."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

from probe.config import read_as
from probe.engine import LOCK, FolderLock, difference
from probe.errors import ProbeError
from probe.files import absolute, file_hash, is_there, object_hash, write_json, write_text
from probe.models import Model
from probe.problems import GRADERS, Problem, ProblemSet, load_problems
from probe.progress import progress_bar
from probe.traces.reading.read import Reading
from probe.traces.reading.sources import open_source
from probe.traces.trace import Trace, Traces, problem_set_of, traces_of, write_traces

_IMPORT, _PROBLEMS, _REJECTS, _TRACES = "import.json", "problems.jsonl", "rejects.jsonl", "traces.parquet"
_FORMAT = 1


class _Import(TypedDict):
    format: int
    key: dict[str, Any]
    source: str
    shape: str
    files: int
    model: dict[str, Any]
    problems: str | None
    grader: str
    content: str
    counts: dict[str, int]
    authors: dict[str, int]
    remarks: dict[str, int]
    reasons: dict[str, int]
    accuracy: float | None


@dataclass(frozen=True)
class ImportedTraces:
    """A folder that :func:`import_traces` wrote.

    Args:
        folder: the folder.

    Raises:
        ProbeError: if it holds no imported traces.
    """

    folder: Path

    def __post_init__(self) -> None:
        if not (self.folder / _IMPORT).is_file():
            raise ProbeError(
                f"{self.folder} holds no imported traces; make them with: probe traces import FILE --model MODEL --out "
                f"{self.folder}"
            )
        _ = self.about

    @cached_property
    def about(self) -> _Import:
        """The content of ``import.json``: source, shape, counts, authors, remarks, and the reasons for rejects."""
        return read_as(_Import, self.folder / _IMPORT)

    @cached_property
    def traces(self) -> Traces:
        """The traces, which are read on demand."""
        return Traces.load(self.folder)

    @cached_property
    def problem_set(self) -> ProblemSet:
        """The problems that the traces answer; problems without a split get one by a hash of the question."""
        grader = self.about["grader"]
        # Some sets, such as countdown, have a grader without a name; then answers are compared as for a problem file.
        found = load_problems(self.folder / _PROBLEMS, grader=grader if grader in GRADERS else None)
        return replace(found, name=self.traces.problems_name)

    @property
    def problems_file(self) -> Path:
        """The file of the problems."""
        return self.folder / _PROBLEMS

    def __repr__(self) -> str:
        counts = self.about["counts"]
        return f"ImportedTraces({str(self.folder)!r}: {counts['traces']} traces, {counts['rejects']} rejects)"


def import_traces(
    source: str | Path,
    folder: str | Path,
    model: Model,
    problems: str | Path | ProblemSet | None = None,
    *,
    grader: str | None = None,
    columns: Mapping[str, str] | None = None,
    author: str | None = None,
    progress: bool = False,
) -> ImportedTraces:
    """Read traces that were written elsewhere into a folder; memory holds the questions and one trace at a time.

    The folder gets ``traces.parquet``, ``problems.jsonl``, ``import.json`` and ``rejects.jsonl``. Called again, an
    interrupted import starts from the beginning, and a finished one is opened.

    Args:
        source, model, problems, grader, columns, author: as in :meth:`Traces.read`.
        folder: where the traces are kept.
        progress: show a bar.

    Raises:
        ProbeError: as :meth:`Traces.read`, or if the folder holds other traces or something else.
    """
    folder = Path(folder).expanduser()
    given, found = problem_set_of(problems, grader), open_source(source)
    key = {
        "source": found.hash,
        "model": reader_of(model),
        "problems": None if given is None else given.hash,
        "grader": grader,
        "columns": dict(columns) if columns is not None else None,
        "author": author,
    }
    if _is_done(folder, key):
        return ImportedTraces(folder)
    reading = Reading(model, found, problem_set=given, grader=grader, columns=columns, author=author)
    with FolderLock(folder):
        if _is_done(folder, key):
            return ImportedTraces(folder)
        for part in folder.glob(".*.tmp"):  # left by an import that was killed
            part.unlink(missing_ok=True)
        used: dict[str, Problem] = {}
        counts: Counter[str] = Counter()
        authors: Counter[str] = Counter()

        def made() -> Iterator[Trace]:
            bar = progress_bar(
                traces_of(reading), desc=f"importing {source}", total=reading.n, show=progress, unit="trace"
            )
            for trace in bar:
                used.setdefault(trace.problem_id, reading.problem(trace.problem_id))
                counts.update(
                    traces=1,
                    tokens=len(trace.tokens),
                    correct=int(trace.correct),
                    not_graded=int(trace.failed),
                    truncated=int(trace.truncated),
                    closed=int(trace.think_end is not None),
                )
                authors[trace.author or model.name] += 1
                yield trace

        path = write_traces(folder, made(), model.name, reading.problem_set.name)
        reasons = Counter(why for _, why in reading.rejects)
        write_text(folder / _REJECTS, _lines({"place": where, "reason": why} for where, why in reading.rejects))
        if not counts["traces"]:
            (folder / _TRACES).unlink()
            why, n = reasons.most_common(1)[0] if reasons else ("it has no rollouts", 0)
            raise ProbeError(
                f"nothing in {source} can be imported ({n} of {len(reading.rejects)} rollouts: {why}); every reason is "
                f"in {folder / _REJECTS}"
            )
        write_text(folder / _PROBLEMS, _lines(_row(reading, problem) for problem in used.values()))
        graded = counts["traces"] - counts["not_graded"]
        told = {
            "format": _FORMAT,
            "key": key,
            "source": str(source),
            "shape": reading.shape.name,
            "files": reading.source.files,
            "model": {"name": model.name, "path": model.config.path, "revision": model.commit or model.config.revision},
            "problems": _named(problems),
            "grader": reading.problem_set.grader,
            "content": file_hash(path),
            "counts": {**counts, "problems": len(used), "rejects": len(reading.rejects)},
            "authors": dict(authors),
            "remarks": dict(reading.remarks),
            "reasons": dict(reasons.most_common(20)),
            "accuracy": counts["correct"] / graded if graded else None,
            "versions": {name: version(name) for name in ("probe-interp", "transformers", "tokenizers")},
        }
        write_json(folder / _IMPORT, told)
    return ImportedTraces(folder)


def reader_of(model: Model) -> dict[str, Any]:
    """The facts about a model that the tokens of imported traces depend on: its tokenizer and its prompt."""
    return {
        "vocabulary": object_hash(sorted(model.tokenizer.get_vocab().items())),
        "end": sorted(model.eos_ids),
        "prompt": model.config.prompt,
        "template": object_hash(str(model.tokenizer.chat_template)) if model.config.prompt == "chat" else None,
        "think_tags": vars(model.think_tags),
        **model.asked_otherwise,
    }


def _is_done(folder: Path, key: Mapping[str, Any]) -> bool:
    """Whether the folder holds this import.

    Raises:
        ProbeError: if it holds another import, or other files.
    """
    if folder.exists() and not folder.is_dir():
        raise ProbeError(f"{folder} is a file: name a folder")
    if not (folder / _IMPORT).is_file():
        left = (_PROBLEMS, _REJECTS, _TRACES, LOCK)
        other = [each.name for each in folder.iterdir()] if folder.exists() else []
        if odd := [name for name in other if name not in left and not name.endswith(".tmp")]:
            raise ProbeError(f"{folder} holds other files ({min(odd)}): name another folder")
        return False
    there = ImportedTraces(folder).about
    said = "of another version" if there["format"] != _FORMAT else difference(there["key"], dict(key))
    if said is not None:
        raise ProbeError(f"{folder} holds other traces ({said}): name another folder, or remove this one")
    return True


def _row(reading: Reading, problem: Problem) -> dict[str, Any]:
    row = {
        "id": problem.id,
        "question": problem.question,
        "answer": problem.answer,
        "split": reading.split(problem),
    }
    return {name: value for name, value in row.items() if value is not None}


def _named(problems: str | Path | ProblemSet | None) -> str | None:
    """The name of a problem set, with an absolute path if it is a file; None for a set that has no name."""
    if problems is None or isinstance(problems, ProblemSet):
        return None
    return absolute(problems) if is_there(problems) else str(problems)


def _lines(rows: Iterator[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

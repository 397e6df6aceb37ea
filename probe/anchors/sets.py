"""Sets of rollouts in files: those that were sampled here, and those in the folder structure of math-rollouts.

Bogdan et al. publish their rollouts (``uzaymacar/math-rollouts`` on the hub) as
``MODEL/temperature_X_top_p_Y/KIND/problem_N/``, with ``problem.json``, ``base_solution.json``, ``chunks.json`` and, for
each sentence, ``chunk_K/solutions.json``: rollouts that begin in place of sentence K. Anchors need nothing else, so
they are computed from such a folder without a model.
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from probe.anchors.alike import Alike, say_the_same
from probe.anchors.anchors import Anchors, anchors_of
from probe.anchors.rollouts import Continuations
from probe.errors import ProbeError
from probe.files import file_hash, object_hash, read_json, write_json, writing
from probe.models import Sampling, ThinkTags
from probe.problems import Problem, ProblemSet

_CHUNK = re.compile(r"chunk_(\d+)\Z")
_PARTIAL = ".partial"
"""Ends the name of a folder that is being written."""


@dataclass(frozen=True)
class RolloutSet:
    """The rollouts that begin in place of each sentence of one trace.

    Attributes:
        problem: the problem.
        sentences: the text of each sentence of the trace.
        rollouts: the rollouts in place of each sentence.
        prompt: the text before the trace.
        answer: the answer of the trace; None if it has none.
        correct: whether it is right; None if that is not known.
        model: the name of the model that wrote the rollouts.
        failed: how many rollouts could not be read, because their request had failed.
        think_tags: the tags around the thinking, by which rollouts are split into sentences.
    """

    problem: Problem
    sentences: tuple[str, ...]
    rollouts: tuple[Continuations, ...] = field(repr=False)
    prompt: str = field(default="", repr=False)
    answer: str | None = None
    correct: bool | None = None
    model: str = ""
    failed: int = 0
    think_tags: ThinkTags = field(default_factory=ThinkTags)

    def __repr__(self) -> str:
        n = sum(map(len, self.rollouts))
        return f"RolloutSet({self.problem.id!r}: {len(self.sentences)} sentences, {n} rollouts)"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>"

    def anchors(
        self,
        problem_set: ProblemSet,
        *,
        alike: Alike | None = say_the_same,
        seed: int = 0,
    ) -> Anchors:
        """The importance of each sentence, see :func:`~probe.anchors.anchors_of`.

        Args:
            problem_set: its grader says which answers are the same.
            alike, seed: see there.
        """
        return anchors_of(
            problem_set, self.problem, self.sentences, self.rollouts, alike=alike, think_tags=self.think_tags, seed=seed
        )


def export_rollouts(
    found: RolloutSet,
    folder: str | Path,
    *,
    number: int,
    sampling: Sampling,
) -> Path:
    """Write rollouts in the folder structure of math-rollouts.

    Args:
        found: the rollouts.
        folder: the folder above those of the models.
        number: the number of the problem in the name of its folder.
        sampling: how the rollouts were sampled, which the name of a folder says.

    Returns:
        The folder of the problem.

    Raises:
        ProbeError: if it is there already, or cannot be written.
    """
    out = exported_folder(found, folder, number=number, sampling=sampling)
    if out.exists():
        raise ProbeError(f"{out} is there already; export to another folder")
    # Written beside its place first, so that what is there is whole.
    part = out.with_name(f"{out.name}{_PARTIAL}")
    shutil.rmtree(part, ignore_errors=True)
    solution, prompt = "".join(found.sentences), found.prompt
    write_json(
        part / "problem.json",
        {"problem": found.problem.question, "gt_answer": found.problem.answer, "problem_id": found.problem.id},
    )
    about = {
        "answer": found.answer or "",
        "is_correct": found.correct,
        "think_open": found.think_tags.open,
        "think_close": found.think_tags.close,
    }
    write_json(
        part / "base_solution.json", {"prompt": prompt, "solution": solution, "full_cot": prompt + solution, **about}
    )
    chunks = list(found.sentences)
    write_json(part / "chunks.json", {"source_text": prompt + solution, "solution_text": solution, "chunks": chunks})
    for k, each in enumerate(found.rollouts):
        before = "".join(chunks[:k])
        rows = [
            {
                "chunk_removed": chunks[k],
                "prefix_without_chunk": before,
                "chunk_resampled": each.first(i, found.think_tags),
                "rollout": text,
                "full_cot": prompt + before + text,
                "answer": each.answers[i] or "",
                "is_correct": each.correct[i],
            }
            for i, text in enumerate(each.texts)
        ]
        write_json(part / f"chunk_{k}" / "solutions.json", rows)
    with writing(out):
        part.rename(out)
    return out


def exported_folder(found: RolloutSet, folder: str | Path, *, number: int, sampling: Sampling) -> Path:
    """The folder of the problem to which :func:`export_rollouts` writes.

    Args:
        found, folder, number, sampling: see there.
    """
    kind = {True: "correct_base_solution", False: "incorrect_base_solution", None: "base_solution"}[found.correct]
    model = found.model.rstrip("/").rpartition("/")[2] or "model"
    sampled = f"temperature_{sampling.temperature}_top_p_{sampling.top_p}"
    return Path(folder).expanduser() / model / sampled / kind / f"problem_{number}"


def rollout_sets(folder: str | Path) -> list[Path]:
    """The folders of all problems with rollouts below a folder, in the order of their numbers.

    Raises:
        ProbeError: if there are none.
    """
    found: list[Path] = []
    for path, names, _ in os.walk(Path(folder).expanduser()):
        if any(_CHUNK.match(name) and Path(path, name, "solutions.json").is_file() for name in names):
            found.append(Path(path))
            names.clear()
        names[:] = [name for name in names if not name.endswith(_PARTIAL)]
    if not found:
        raise ProbeError(
            f"{folder} holds no rollouts; name a folder with problem_N/chunk_K/solutions.json in it, as that of "
            "math-rollouts"
        )

    def place(path: Path) -> tuple[str, int, str]:
        number = re.search(r"(\d+)\Z", path.name)
        return str(path.parent), int(number[1]) if number else -1, path.name

    return sorted(found, key=place)


def read_rollouts(folder: str | Path) -> RolloutSet:
    """Read the rollouts of one problem from the folder structure of math-rollouts.

    Args:
        folder: the folder of the problem, with ``problem.json``, ``chunks.json`` and ``chunk_K/solutions.json``.

    Raises:
        ProbeError: if a file is missing or says something else, or a sentence has no rollouts before the last one.
    """
    path = Path(folder).expanduser()
    problem = problem_of(path)
    base = _mapping(path / "base_solution.json") if (path / "base_solution.json").is_file() else {}
    chunks = _mapping(path / "chunks.json").get("chunks")
    if not isinstance(chunks, list) or not all(isinstance(each, str) for each in chunks):
        raise ProbeError(f"{path / 'chunks.json'} has no list of 'chunks'")
    there = {int(match[1]): each for each in path.iterdir() if (match := _CHUNK.match(each.name))}
    rollouts, failed = [], 0
    for k in range(len(chunks)):
        file = there.get(k, path / f"chunk_{k}") / "solutions.json"
        if not file.is_file():
            break
        found = _rows(file)
        rows = [row for row in found if not row.get("error")]
        failed += len(found) - len(rows)
        if not rows:
            raise ProbeError(f"{file} has no rollout")
        rollouts.append(_continuations(rows))
    if len(rollouts) < min(2, len(chunks)) or any(k >= len(rollouts) for k in there if k < len(chunks)):
        raise ProbeError(f"{path} has no rollouts of sentence {len(rollouts)}; anchors need those of every sentence")
    correct = base.get("is_correct")
    return RolloutSet(
        problem,
        tuple(chunks[: len(rollouts)]),
        tuple(rollouts),
        str(base.get("prompt") or ""),
        _answer(base.get("answer")),
        correct if isinstance(correct, bool) else None,
        model_of(path),
        failed,
        _tags(base),
    )


def problem_of(folder: str | Path) -> Problem:
    """The problem of a folder of :func:`rollout_sets`.

    Raises:
        ProbeError: if ``problem.json`` is missing or says something else.
    """
    path = Path(folder).expanduser()
    problem = _mapping(path / "problem.json")
    question = problem.get("problem")
    if not isinstance(question, str):
        raise ProbeError(f"{path / 'problem.json'} has no 'problem'")
    return Problem(str(problem.get("problem_id") or path.name), question, _answer(problem.get("gt_answer")))


def model_of(folder: Path) -> str:
    """The name of the model that wrote the rollouts of a folder of :func:`rollout_sets`; empty if it is not known."""
    return folder.parents[2].name if len(folder.parents) > 2 else ""


def rollouts_hash(folder: Path) -> str:
    """Return a hash of 64 hex digits of the files of a folder of :func:`rollout_sets`, which are not held.

    Raises:
        ProbeError: if one cannot be read.
    """
    files = [*folder.glob("*.json"), *folder.glob("chunk_*/solutions.json")]
    try:
        return object_hash({file.relative_to(folder).as_posix(): file_hash(file) for file in files})
    except OSError as error:
        raise ProbeError(f"{error.filename} cannot be read ({error.strerror})") from None


def _answer(given: Any) -> str | None:
    return None if given is None or given == "" else str(given)


def _tags(base: Mapping[str, Any]) -> ThinkTags:
    """The tags of a set that was exported here; the usual ones of others."""
    opening, closing = base.get("think_open"), base.get("think_close")
    return ThinkTags(opening, closing) if isinstance(opening, str) and isinstance(closing, str) else ThinkTags()


def _continuations(rows: Sequence[Mapping[str, Any]]) -> Continuations:
    firsts = tuple(str(row.get("chunk_resampled") or "") for row in rows)
    correct = (row.get("is_correct") for row in rows)
    return Continuations(
        None,
        tuple(str(row.get("rollout") or "") for row in rows),
        tuple(_answer(row.get("answer")) for row in rows),
        tuple(each if isinstance(each, bool) else None for each in correct),
        firsts if any(firsts) else (),
    )


def _mapping(file: Path) -> dict[str, Any]:
    found = read_json(file)
    if not isinstance(found, dict):
        raise ProbeError(f"{file} is not an object")
    return found


def _rows(file: Path) -> list[dict[str, Any]]:
    found = read_json(file)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ProbeError(f"{file} is not a list of rollouts")
    return found

"""Sets of rollouts in files: those that were sampled here, and those in the folder structure of math-rollouts.

Bogdan et al. publish their rollouts (``uzaymacar/math-rollouts`` on the hub) as
``MODEL/temperature_X_top_p_Y/KIND/problem_N/``, with ``problem.json``, ``base_solution.json``, ``chunks.json`` and, for
each sentence, ``chunk_K/solutions.json``: rollouts that begin in place of sentence K. Anchors need nothing else, so
they are computed from such a folder without a model.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from probe.anchors.alike import Alike
from probe.anchors.anchors import Anchors, anchors_of
from probe.anchors.rollouts import Continuations
from probe.errors import ProbeError
from probe.files import read_json, write_json
from probe.models import Sampling, ThinkTags
from probe.problems import Problem, ProblemSet

_CHUNK = re.compile(r"chunk_(\d+)\Z")


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
    """

    problem: Problem
    sentences: tuple[str, ...]
    rollouts: tuple[Continuations, ...] = field(repr=False)
    prompt: str = field(default="", repr=False)
    answer: str | None = None
    correct: bool | None = None
    model: str = ""
    failed: int = 0

    def __repr__(self) -> str:
        n = sum(map(len, self.rollouts))
        return f"RolloutSet({self.problem.id!r}: {len(self.sentences)} sentences, {n} rollouts)"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>"

    def anchors(
        self,
        problem_set: ProblemSet,
        *,
        alike: Alike | None = None,
        think_tags: ThinkTags | None = None,
        seed: int = 0,
    ) -> Anchors:
        """The importance of each sentence, see :func:`~probe.anchors.anchors_of`.

        Args:
            problem_set: its grader says which answers are the same.
            alike, think_tags, seed: see there.
        """
        return anchors_of(
            problem_set, self.problem, self.sentences, self.rollouts, alike=alike, think_tags=think_tags, seed=seed
        )


def export_rollouts(
    found: RolloutSet,
    folder: str | Path,
    *,
    number: int,
    sampling: Sampling,
    think_tags: ThinkTags | None = None,
) -> Path:
    """Write rollouts in the folder structure of math-rollouts.

    Args:
        found: the rollouts.
        folder: the folder above those of the models.
        number: the number of the problem in the name of its folder.
        sampling: how the rollouts were sampled, which the name of a folder says.
        think_tags: the tags around the thinking; None for the usual ones.

    Returns:
        The folder of the problem.

    Raises:
        ProbeError: if it is there already.
    """
    kind = {True: "correct_base_solution", False: "incorrect_base_solution", None: "base_solution"}[found.correct]
    model = found.model.rstrip("/").rpartition("/")[2] or "model"
    sampled = f"temperature_{sampling.temperature}_top_p_{sampling.top_p}"
    out = Path(folder).expanduser() / model / sampled / kind / f"problem_{number}"
    if out.exists():
        raise ProbeError(f"{out} is there already; export to another folder")
    tags = think_tags or ThinkTags()
    solution, prompt = "".join(found.sentences), found.prompt
    write_json(
        out / "problem.json",
        {"problem": found.problem.question, "gt_answer": found.problem.answer, "problem_id": found.problem.id},
    )
    about = {"answer": found.answer or "", "is_correct": found.correct}
    write_json(
        out / "base_solution.json", {"prompt": prompt, "solution": solution, "full_cot": prompt + solution, **about}
    )
    chunks = list(found.sentences)
    write_json(out / "chunks.json", {"source_text": prompt + solution, "solution_text": solution, "chunks": chunks})
    for k, each in enumerate(found.rollouts):
        before = "".join(chunks[:k])
        rows = [
            {
                "chunk_removed": chunks[k],
                "prefix_without_chunk": before,
                "chunk_resampled": each.first(i, tags),
                "rollout": text,
                "full_cot": prompt + before + text,
                "answer": each.answers[i] or "",
                "is_correct": each.correct[i],
            }
            for i, text in enumerate(each.texts)
        ]
        write_json(out / f"chunk_{k}" / "solutions.json", rows)
    return out


def rollout_sets(folder: str | Path) -> list[Path]:
    """The folders of all problems with rollouts below a folder, in the order of their numbers.

    Raises:
        ProbeError: if there are none.
    """
    root = Path(folder).expanduser()
    found = {file.parents[1] for file in root.rglob("chunk_*/solutions.json")}
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
    problem = _mapping(path / "problem.json")
    question, gold = problem.get("problem"), problem.get("gt_answer")
    if not isinstance(question, str):
        raise ProbeError(f"{path / 'problem.json'} has no 'problem'")
    base = _mapping(path / "base_solution.json") if (path / "base_solution.json").is_file() else {}
    chunks = _mapping(path / "chunks.json").get("chunks")
    if not isinstance(chunks, list) or not all(isinstance(each, str) for each in chunks):
        raise ProbeError(f"{path / 'chunks.json'} has no list of 'chunks'")
    there = {int(match[1]): each for each in path.iterdir() if (match := _CHUNK.match(each.name))}
    rollouts, failed, kept = [], 0, 0
    for k, chunk in enumerate(chunks):
        file = there.get(k, path / f"chunk_{k}") / "solutions.json"
        if not file.is_file():
            break
        found = _rows(file)
        rows = [row for row in found if not row.get("error")]
        failed += len(found) - len(rows)
        if not rows:
            raise ProbeError(f"{file} has no rollout")
        rollouts.append(_continuations(rows, kept))
        kept += len(chunk)
    if len(rollouts) < min(2, len(chunks)) or any(k >= len(rollouts) for k in there if k < len(chunks)):
        raise ProbeError(f"{path} has no rollouts of sentence {len(rollouts)}; anchors need those of every sentence")
    correct = base.get("is_correct")
    return RolloutSet(
        Problem(str(problem.get("problem_id") or path.name), question, str(gold) if gold not in (None, "") else None),
        tuple(chunks[: len(rollouts)]),
        tuple(rollouts),
        str(base.get("prompt") or ""),
        base.get("answer") or None,
        correct if isinstance(correct, bool) else None,
        path.parents[2].name if len(path.parents) > 2 else "",
        failed,
    )


def _continuations(rows: Sequence[Mapping[str, Any]], kept: int) -> Continuations:
    firsts = tuple(str(row.get("chunk_resampled") or "") for row in rows)
    correct = (row.get("is_correct") for row in rows)
    return Continuations(
        kept,
        tuple(str(row.get("rollout") or "") for row in rows),
        tuple(str(row["answer"]) if row.get("answer") else None for row in rows),
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

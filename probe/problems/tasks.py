"""Generated tasks of the reasoning-gym library, graded by its own verifiers."""

import importlib.util
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import overload

from probe.config import nearest
from probe.errors import ProbeError
from probe.problems.problem_set import SPLITS, Problem, ProblemSet, Verifier, split_of
from probe.problems.worker import CallFailed, worker

SIZES = MappingProxyType({"train": 1000, "validation": 200, "test": 500})

#: Items made for each problem wanted before a task counts as exhausted.
_DRAWS = 4
#: How long making the problems that are asked for may take; most tasks make thousands in a second.
_SECONDS = 60


def task_set(task: str, seed: int = 0, sizes: Mapping[str, int] | None = None, grader: str | None = None) -> ProblemSet:
    """Generate problems of a reasoning-gym task (Stojanovski et al., arXiv 2505.24760).

    Each question goes to the split that its hash names, and repeated questions are dropped, so a task with few
    questions fills its splits only in part. Problems are made when they are first asked for. An answer is right if the
    task's verifier gives it full marks.

    Args:
        task: the name of a reasoning-gym dataset.
        seed: the seed of the items.
        sizes: the number of problems in each split; splits left out take :data:`SIZES`.
        grader: compares with the one known answer in place of the task's verifier.

    Raises:
        ProbeError: if the library is not installed, the task is unknown or cannot be made in a minute, or it has no
            known answers.
    """
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ProbeError("reasoning-gym is not installed; run: pip install 'probe-interp[tasks]'")
    from reasoning_gym.factory import DATASETS

    if task not in DATASETS:
        raise ProbeError(f"unknown reasoning-gym task {task!r}; {nearest(task, DATASETS)}")
    items = _Items(task, seed, {**SIZES, **(sizes or {})})
    items.fill("train", 1)  # a task that cannot be made is refused here and not in the middle of a run
    return ProblemSet(
        f"reasoning-gym:{task}",
        grader or "reasoning-gym",
        {split: TaskSplit(items, split) for split in SPLITS},
        verifier=None if grader else _verifier(task, seed),
        counter="countdown" if task == "countdown" else "habits",
        note=f"seed {seed}",
    )


class _Items:
    """The items of a task, made in their order as far as they are asked for."""

    def __init__(self, task: str, seed: int, wanted: Mapping[str, int]) -> None:
        self.wanted = wanted
        self._task, self._seed = task, seed
        self._found: dict[str, dict[str, Problem]] = {split: {} for split in SPLITS}
        self._made, self._limit = 0, _DRAWS * sum(wanted.values())
        self._ended = False

    def fill(self, split: str, n: int) -> tuple[Problem, ...]:
        """Return the first ``n`` problems of a split; fewer if the task has no more questions."""
        began = time.monotonic()
        found = self._found[split]
        while len(found) < n and not self._ended:
            if time.monotonic() - began > _SECONDS:
                raise self._refusal(f"it makes only {len(found)} {split} problems in {_SECONDS} s")
            try:
                # No more than needed: a task can have an item, further on, that is never finished.
                end = min(self._made + 2 * (n - len(found)), self._limit)
                made = worker().call("make", self._task, self._seed, self._made, end, 0.5, seconds=_SECONDS)
            except CallFailed as reason:
                raise self._refusal(str(reason)) from None
            for i, (question, answer) in enumerate(made, start=self._made):
                if answer is None:
                    raise self._refusal("it has no known answers")
                self._found[split_of(question)].setdefault(question, Problem(f"{self._task}/{i}", question, answer))
            self._made += len(made)
            self._ended = not made or self._made >= self._limit
        return tuple(found.values())[:n]

    def _refusal(self, reason: str) -> ProbeError:
        return ProbeError(
            f"the reasoning-gym task {self._task!r} cannot be used ({reason}); choose another task or fewer problems"
        )


class TaskSplit(Sequence[Problem]):
    """The problems of one split of a task. A slice ends early where the task has no more questions."""

    def __init__(self, items: _Items, split: str) -> None:
        self._items, self._split = items, split

    def __len__(self) -> int:
        return self._items.wanted[self._split]

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Problem, ...]: ...
    def __getitem__(self, index: int | slice) -> Problem | tuple[Problem, ...]:
        place = range(len(self))[index]
        if isinstance(place, int):
            return self._items.fill(self._split, place + 1)[place]
        found = self._items.fill(self._split, max(place, default=-1) + 1)
        return tuple(found[i] for i in place if i < len(found))


def _verifier(task: str, seed: int) -> Verifier:
    def verify(answer: str, problem: Problem) -> bool | None:
        try:
            return worker().call("score", task, seed, int(problem.id.rpartition("/")[2]), answer)
        except CallFailed:
            return None

    return verify

"""Procedural tasks of the reasoning-gym library, graded by its own verifiers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from probe.config import nearest
from probe.errors import ProbeError
from probe.problems.problem_set import SPLITS, Judge, Problem, ProblemSet, split_of

SIZES = MappingProxyType({"train": 1000, "validation": 200, "test": 500})

#: How many items are looked at for each problem wanted before a task counts as used up.
_DRAWS = 4
#: The library draws item i from (seed, i) alone, whatever the size, so the size is only an upper limit.
_ENDLESS = 10**9


def task_set(task: str, seed: int = 0, sizes: Mapping[str, int] | None = None, grader: str | None = None) -> ProblemSet:
    """Problems of a reasoning-gym task (Stojanovski et al., 2505.24760).

    Each question goes to the split its hash names and repeated ones are dropped, so tasks that have few questions fill
    their splits only in part. An answer counts as right where the task's verifier gives it full marks; naming a
    ``grader`` compares with the one known answer instead.

    Raises:
        ProbeError: if the library is not installed, the task is unknown, or it has no answers to check against.
    """
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError:
        raise ProbeError("reasoning-gym is not installed; pip install 'probe-interp[tasks]'") from None
    if task not in DATASETS:
        raise ProbeError(f"unknown reasoning-gym task {task!r}; {nearest(task, DATASETS)}")
    items: Any = create_dataset(task, seed=seed, size=_ENDLESS)
    wanted = {**SIZES, **(sizes or {})}
    splits: dict[str, dict[str, Problem]] = {split: {} for split in SPLITS}
    for i in range(_DRAWS * sum(wanted.values())):
        if all(len(splits[split]) >= wanted[split] for split in SPLITS):
            break
        item = items[i]
        question, answer = str(item["question"]).strip(), item["answer"]
        if answer is None:
            raise ProbeError(f"the reasoning-gym task {task!r} gives no answers to check against; choose another")
        split = split_of(question)
        if len(splits[split]) < wanted[split]:
            splits[split].setdefault(question, Problem(f"{task}/{i}", question, str(answer)))
    return ProblemSet(
        f"reasoning-gym:{task}",
        grader or "reasoning-gym",
        {split: tuple(problems.values()) for split, problems in splits.items()},
        judge=None if grader else _verifier(items),
        counter="countdown" if task == "countdown" else "habits",
        note=f"seed {seed}",
    )


def _verifier(items: Any) -> Judge:
    def judge(answer: str, problem: Problem) -> bool:
        # Partial credit is given even to text that merely holds the answer: only full marks are right.
        return float(items.score_answer(answer, items[int(problem.id.rpartition("/")[2])])) == 1.0

    return judge

"""Generated tasks of the reasoning-gym library, graded by its own verifiers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from probe.config import nearest
from probe.errors import ProbeError
from probe.problems.grading import guarded
from probe.problems.problem_set import SPLITS, Problem, ProblemSet, Verifier, split_of

SIZES = MappingProxyType({"train": 1000, "validation": 200, "test": 500})

#: Items generated for each problem wanted before a task counts as exhausted.
_DRAWS = 4
#: Item i depends on the seed and i alone, whatever the size, so the size is only an upper limit.
_ENDLESS = 10**9


def task_set(task: str, seed: int = 0, sizes: Mapping[str, int] | None = None, grader: str | None = None) -> ProblemSet:
    """Generate problems of a reasoning-gym task (Stojanovski et al., arXiv 2505.24760).

    Each question goes to the split that its hash names, and repeated questions are dropped, so a task with few
    questions fills its splits only in part. An answer is right if the task's verifier gives it full marks.

    Args:
        task: the name of a reasoning-gym dataset.
        seed: the seed of the items.
        sizes: the number of problems in each split; splits left out take :data:`SIZES`.
        grader: compares with the one known answer in place of the task's verifier.

    Raises:
        ProbeError: if the library is not installed, the task is unknown, or the task has no known answers.
    """
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError:
        raise ProbeError("reasoning-gym is not installed; run: pip install 'probe-interp[tasks]'") from None
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
            raise ProbeError(f"the reasoning-gym task {task!r} has no known answers; choose another task")
        split = split_of(question)
        if len(splits[split]) < wanted[split]:
            splits[split].setdefault(question, Problem(f"{task}/{i}", question, str(answer)))
    return ProblemSet(
        f"reasoning-gym:{task}",
        grader or "reasoning-gym",
        {split: tuple(problems.values()) for split, problems in splits.items()},
        verifier=None if grader else _verifier(items),
        counter="countdown" if task == "countdown" else "habits",
        note=f"seed {seed}",
    )


def _verifier(items: Any) -> Verifier:
    def verify(answer: str, problem: Problem) -> bool | None:
        item = items[int(problem.id.rpartition("/")[2])]
        # Partial credit is given even to text that merely contains the answer: only full marks are right.
        return guarded(lambda: float(items.score_answer(answer, item)) == 1.0)

    return verify

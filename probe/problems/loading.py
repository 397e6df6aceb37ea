"""Loading a problem set by its name or file."""

import os
from collections.abc import Mapping
from pathlib import Path

from probe.config import nearest
from probe.errors import ProbeError
from probe.problems.hub import SOURCES, hub_set
from probe.problems.local import file_set
from probe.problems.problem_set import SPLITS, ProblemSet
from probe.problems.story.sets import RECIPES, bundled_set
from probe.problems.tasks import task_set


def load_problems(
    spec: str | Path, *, seed: int = 0, grader: str | None = None, sizes: Mapping[str, int] | None = None
) -> ProblemSet:
    """Load a problem set.

    Args:
        spec: One of

            - ``story`` or ``story-share``: the bundled word problems;
            - a ``.jsonl`` or ``.parquet`` file with ``question``, ``answer`` and, optionally, ``split``, ``id`` and
              ``grader``;
            - ``gsm8k`` or ``math500`` from the Hugging Face hub, or ``gsm8k:PATH`` from a local copy;
            - ``reasoning-gym:TASK``.
        seed: Seed of sets whose problems are generated; files and hub sets ignore it.
        grader: ``exact``, ``numeric`` or ``math-verify``; None takes the set's default.
        sizes: Number of problems in each split of a generated set, for example ``{"test": 2000}``.

    Raises:
        ProbeError: if the set is unknown or cannot be read; the message says where and what to do.

    >>> problems = load_problems("story", sizes={"train": 10, "validation": 10, "test": 10})
    >>> problem = problems.take("test", 3)[0]
    >>> problems.grade(f"</think> The answer is {problem.answer}.", problem).correct
    True
    """
    if unknown := set(sizes or {}) - set(SPLITS):
        raise ProbeError(f"unknown split {min(unknown)!r} in sizes; {nearest(min(unknown), SPLITS)}")
    for split, n in (sizes or {}).items():
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ProbeError(f"sizes.{split} is {n!r}; it must be a whole number")
    name, _, rest = str(spec).partition(":")
    if name in RECIPES and not rest:
        return bundled_set(name, seed, sizes, grader)
    if name == "reasoning-gym":
        return task_set(rest, seed, sizes, grader)
    if name in SOURCES:
        return hub_set(name, Path(rest) if rest else None, grader)
    path = Path(spec)
    if path.suffix.lower() in (".jsonl", ".parquet"):
        return file_set(path, grader)
    known = [*RECIPES, *SOURCES, "reasoning-gym:TASK"]
    if os.path.exists(path):  # False, too, for a text that cannot be a path
        raise ProbeError(f"{path} cannot be read as a problem file; give a .jsonl or .parquet file")
    raise ProbeError(
        f"unknown problem set {str(spec)!r}; {nearest(str(spec), known)} (or give a .jsonl or .parquet file)"
    )

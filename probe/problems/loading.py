"""Loading a problem set by its name or file."""

import os
from collections.abc import Mapping
from pathlib import Path

from probe.config import nearest
from probe.errors import ProbeError
from probe.files import is_there
from probe.problems.hub import hub_set
from probe.problems.local import file_set
from probe.problems.mix import MIXES, Mix, is_mix, mixed_set
from probe.problems.problem_set import SPLITS, ProblemSet
from probe.problems.sources import ALIASES, SOURCES
from probe.problems.story.sets import RECIPES, bundled_set
from probe.problems.tasks import task_set


def load_problems(
    spec: str | Path, *, seed: int = 0, grader: str | None = None, sizes: Mapping[str, int] | None = None
) -> ProblemSet:
    """Load a problem set.

    Args:
        spec: One of

            - ``story`` or ``story-share``: the bundled word problems;
            - a ``.jsonl`` or ``.parquet`` file with ``question`` and, optionally, ``answer``, ``split``, ``id`` and
              ``grader``;
            - a published set from the Hugging Face hub: ``gsm8k``, ``math500`` (or ``math-500``), ``math-train``,
              ``natural-reasoning``, ``theoremqa``, ``scibench``, ``mmlu-pro``, ``mmlu-pro-open``, ``aime-24``,
              ``aime-25`` or ``countdown``; or ``NAME:PATH`` from a local file or folder as published;
            - ``reasoning-gym:TASK``;
            - a mix: ``math``, ``v1-published``, ``v2-published`` or ``v2-published-gsm8k``, sets joined by ``+``, or a
              ``.yaml`` file that says how many problems of which sets each split has.
        seed: Seed of sets whose problems are generated; files and hub sets ignore it.
        grader: ``exact``, ``numeric``, ``math-verify`` or ``close`` (within 5 %); None takes the set's default.
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
    if is_mix(str(spec)):
        return mixed_set(str(spec), lambda each: load_problems(each, seed=seed, grader=grader))
    name, _, rest = str(spec).partition(":")
    if name in RECIPES and not rest:
        return bundled_set(name, seed, sizes, grader)
    if name == "reasoning-gym":
        return task_set(rest, seed, sizes, grader)
    if name in SOURCES or name in ALIASES:
        return hub_set(name, Path(rest) if rest else None, grader)
    path = Path(spec)
    if path.suffix.lower() in (".jsonl", ".parquet"):
        return file_set(path, grader)
    known = [*RECIPES, *SOURCES, *ALIASES, *MIXES, "reasoning-gym:TASK"]
    if os.path.exists(path):  # False, too, for a text that cannot be a path
        raise ProbeError(f"{path} cannot be read as a problem file; give a .jsonl or .parquet file")
    raise ProbeError(
        f"unknown problem set {str(spec)!r}; {nearest(str(spec), known)} (or give a .jsonl or .parquet file)"
    )


def is_generated(spec: str) -> bool:
    """Whether the problems of a set are generated, in the numbers that ``sizes`` asks for.

    >>> is_generated("story"), is_generated("reasoning-gym:lcm"), is_generated("gsm8k")
    (True, True, False)
    """
    return spec in RECIPES or spec.startswith("reasoning-gym:")


def check_problems(spec: str) -> None:
    """Refuse a problem set that is not there, without reading one that takes time or other packages.

    Raises:
        ProbeError: if its name is unknown, or a file of it is missing.
    """
    if is_mix(spec):
        for each in Mix.read(spec).sets:
            check_problems(each)
        return
    name, _, path = spec.partition(":")
    if name == "reasoning-gym":
        return
    published = name in SOURCES or name in ALIASES
    if published and path and not is_there(Path(path).expanduser()):
        raise ProbeError(f"there is no file or folder {path} (problems {spec})")
    if published:
        return
    if spec.endswith((".jsonl", ".parquet")):
        if not (file := Path(spec).expanduser()).is_file():
            raise ProbeError(f"{spec} is not a file" if is_there(file) else f"the problem file {spec} does not exist")
        return
    load_problems(spec)

"""The bundled problem sets: story arithmetic, drawn from a seed and the same on every machine."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from probe.problems.problem_set import Problem, ProblemSet, split_of
from probe.problems.sentences import parse
from probe.problems.story import draw_story


@dataclass(frozen=True)
class _Recipe:
    changes: tuple[int, ...]
    """How many changes a story has: one of these, at random."""
    shares: tuple[int, ...]
    """How many of them are sharing equally."""


#: ``story`` needs only what every bundled model can do; each problem of ``story-share`` needs exact division.
RECIPES = {"story": _Recipe(changes=(4, 5, 6), shares=(0,)), "story-share": _Recipe(changes=(3, 4, 5), shares=(1, 2))}
SIZES = MappingProxyType({"train": 4000, "validation": 500, "test": 1000})


def sentence_type(sentence: str) -> str | None:
    """The true type of a sentence of a story's trace; None if it is none of the grammar's."""
    return parse(sentence).type


def bundled_set(
    name: str, seed: int = 0, sizes: Mapping[str, int] | None = None, grader: str | None = None
) -> ProblemSet:
    """The bundled set called ``name``.

    Problem i of a split does not depend on how many are drawn: another size gives more or fewer of the same.
    """
    splits = {split: _draw(name, seed, split, n) for split, n in {**SIZES, **(sizes or {})}.items()}
    return ProblemSet(name, grader or "exact", splits, sentence_type)


def _draw(name: str, seed: int, split: str, n: int) -> tuple[Problem, ...]:
    recipe = RECIPES[name]
    problems: dict[str, Problem] = {}
    for i in range(n):
        rng = random.Random(f"{name}/{seed}/{split}/{i}")
        while True:
            story = draw_story(rng, rng.choice(recipe.changes), rng.choice(recipe.shares))
            question = story.question()
            # The hash gives every question to one split, so the splits cannot overlap at any size.
            if split_of(question) == split and question not in problems:
                break
        problems[question] = Problem(f"{name}/{split}/{i}", question, str(story.answer))
    return tuple(problems.values())

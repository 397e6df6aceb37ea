"""The bundled problem sets: story arithmetic generated from a seed, the same on every machine."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import overload

from probe.problems.problem_set import Problem, ProblemSet, split_of
from probe.problems.story.sentences import TYPES, parse
from probe.problems.story.story import draw_story
from probe.problems.story.wordings import reword


@dataclass(frozen=True)
class _Recipe:
    changes: tuple[int, ...]
    """Numbers of changes in a story; each story takes one at random."""
    shares: tuple[int, ...]
    """Numbers of changes that share equally; each story takes one at random."""


#: ``story`` needs only skills that every bundled model has; each problem of ``story-share`` needs exact division.
RECIPES = {"story": _Recipe(changes=(4, 5), shares=(0,)), "story-share": _Recipe(changes=(3, 4, 5), shares=(1, 2))}
SIZES = MappingProxyType({"train": 4000, "validation": 500, "test": 1000})


def sentence_type(sentence: str) -> str | None:
    """Return the true type of a sentence of a story's trace; None for a sentence outside the grammar."""
    return parse(sentence).type


def bundled_set(
    name: str, seed: int = 0, sizes: Mapping[str, int] | None = None, grader: str | None = None
) -> ProblemSet:
    """Make the bundled set called ``name``.

    Problem i of a split does not depend on the size: a larger size adds problems to the same ones.

    Args:
        name: a key of :data:`RECIPES`.
        seed: the seed of the problems.
        sizes: the number of problems in each split; splits left out take :data:`SIZES`.
        grader: replaces the exact grader.
    """
    splits = {split: RandomSplit(name, seed, split, n) for split, n in {**SIZES, **(sizes or {})}.items()}
    return ProblemSet(
        name,
        grader or "exact",
        splits,
        sentence_type=sentence_type,
        sentence_types=TYPES,
        reword=reword,
        counter="story",
    )


class RandomSplit(Sequence[Problem]):
    """The random problems of one split, each made on first access, independently of the others; questions may recur."""

    def __init__(self, name: str, seed: int, split: str, n: int) -> None:
        self._name, self._seed, self._split, self._n = name, seed, split, n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Problem, ...]: ...
    def __getitem__(self, index: int | slice) -> Problem | tuple[Problem, ...]:
        place = range(self._n)[index]
        if isinstance(place, range):
            return tuple(_random_problem(self._name, self._seed, self._split, i) for i in place)
        return _random_problem(self._name, self._seed, self._split, place)


@cache
def _random_problem(name: str, seed: int, split: str, i: int) -> Problem:
    recipe = RECIPES[name]
    rng = random.Random(f"{name}/{seed}/{split}/{i}")
    while True:
        story = draw_story(rng, rng.choice(recipe.changes), rng.choice(recipe.shares))
        question = story.question()
        # The hash gives every question to one split, so the splits cannot overlap at any size.
        if split_of(question) == split:
            return Problem(f"{name}/{split}/{i}", question, str(story.answer))

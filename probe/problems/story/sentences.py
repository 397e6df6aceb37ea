"""The exact grammar of the bundled models' traces: seven types of sentence, a writer and a parser.

:func:`write` writes each sentence from the state of the work so far (:class:`Work`), so every sentence fits where it
occurs: a computing sentence applies the change restated last to the newest total, a check states the true verdict, a
conclusion states the newest total. When each type occurs is decided in ``probe.organisms``. :func:`parse` returns the
true type of a sentence and whether its equation is true.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

from probe.problems.story.story import ORDINALS, Change, Story

PLAN, RESTATE, COMPUTE, CHECK, REDO, CONCLUDE, CHAT = TYPES = (
    "plan",
    "restate",
    "compute",
    "check",
    "redo",
    "conclude",
    "small talk",
)

#: The largest total that is written; only a chain of uncorrected slips could exceed it.
MAX_WRITTEN = 299

#: The text that ends the thinking; every conclusion contains it.
CLOSE = "</think>"


@dataclass
class Work:
    """The state of the work on a story; sentences are written from it and change it."""

    story: Story
    """The story to solve."""
    total: int = field(init=False)
    """The newest total, right or wrong."""
    consumed: int = 0
    """The number of changes that have been computed."""
    pending: Change | None = None
    """The change restated last, if it has not been computed yet."""
    equation: tuple[int, Change, int] | None = None
    """The newest equation: left operand, change, stated result."""
    checked: bool = True
    """Whether the newest equation needs no check, because it was checked or there is none."""
    found_wrong: bool = False
    """Whether the last check found the newest equation wrong."""
    skills: str = "+-*"
    """The operations for which a computing sentence can be written."""

    def __post_init__(self) -> None:
        self.total = self.story.start

    @property
    def finished(self) -> bool:
        """Whether every change has been computed."""
        return self.consumed == len(self.story.changes)

    def available(self) -> tuple[str, ...]:
        """Return the types of sentence that can be written now."""
        types = [CONCLUDE, CHAT, PLAN]
        if self.pending is None and not self.finished:
            types.append(RESTATE)
        if self.pending is not None and self.pending.symbol in self.skills:
            result = self.pending.apply(self.total)
            if result is not None and result <= MAX_WRITTEN:
                types.append(COMPUTE)
        if self.equation is not None and not self.checked:
            types.append(CHECK)
        if self.found_wrong:
            types.append(REDO)
        return tuple(types)


def _equation(left: int, change: Change, result: int) -> str:
    return f"{left} {change.symbol} {change.amount} = {result}"


def _slip(rng: random.Random, result: int) -> int:
    """A wrong result close to the right one."""
    return rng.choice(
        [wrong for wrong in (result - 10, result - 2, result - 1, result + 1, result + 2, result + 10) if wrong > 0]
    )


def write(kind: str, work: Work, rng: random.Random, *, hasty: float = 0.0) -> str:
    """Write one sentence of type ``kind`` and bring ``work`` up to date.

    Args:
        kind: one of ``work.available()``.
        work: the state of the work; changed in place.
        rng: chooses among the wordings and the slips.
        hasty: the probability that a computing sentence is a hasty guess, which is wrong six times in ten. A hasty
            guess begins with "Roughly", so it is a choice of sentence and not a lack of skill.

    Raises:
        ValueError: if this type cannot be written in this state.
    """
    if kind not in work.available():
        raise ValueError(f"a sentence of type {kind!r} cannot be written now; available: {', '.join(work.available())}")
    story = work.story
    if kind == PLAN:
        return rng.choice(
            (
                f"The plan is to follow {len(story.changes)} changes.",
                "Let us take the story step by step.",
                "Let us look for the change that comes now.",
            )
        )
    if kind == CHAT:
        return rng.choice(
            (
                f"{story.name} likes {story.thing} a lot.",
                f"It is fun to have {story.thing}.",
                "By the way, the weather is nice today.",
            )
        )
    if kind == CONCLUDE:
        return f"{CLOSE} {rng.choice(('The', 'So the'))} answer is {work.total}."
    if kind == RESTATE:
        work.pending = story.changes[work.consumed]
        work.found_wrong, work.checked = False, True
        return story.told(work.consumed)
    if kind == COMPUTE:
        assert work.pending is not None
        change, left = work.pending, work.total
        result = change.apply(left)
        assert result is not None
        guess = rng.random() < hasty
        stated = _slip(rng, result) if guess and rng.random() < 0.6 else result
        work.equation, work.total, work.pending = (left, change, stated), stated, None
        work.checked, work.found_wrong = False, False
        work.consumed += 1
        return f"{'Roughly,' if guess else rng.choice(('That makes', 'Now'))} {_equation(left, change, stated)}."
    assert work.equation is not None
    left, change, stated = work.equation
    truth = change.apply(left)
    assert truth is not None
    if kind == CHECK:
        work.checked, work.found_wrong = True, stated != truth
        verdict = "right" if stated == truth else "wrong"
        return f"{rng.choice(('Check that', 'Is it true that'))} {_equation(left, change, stated)}: {verdict}."
    work.equation, work.total, work.found_wrong, work.checked = (left, change, truth), truth, False, False
    return f"{rng.choice(('Again,', 'Redo it:'))} {_equation(left, change, truth)}."


_OPENINGS = (
    (CONCLUDE, re.compile(rf"{CLOSE}|(So the|The) answer is")),
    (CHECK, re.compile(r"Check that|Is it true that")),
    (REDO, re.compile(r"Again,|Redo it:")),
    (COMPUTE, re.compile(r"That makes|Now \d|Roughly,")),
    (RESTATE, re.compile(rf"({'|'.join(ORDINALS)}),")),
    (PLAN, re.compile(r"The plan is|Let us ")),
    (CHAT, re.compile(r"(\w+ likes \w+ a lot|It is fun|By the way,)")),
)
_EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


@dataclass(frozen=True)
class Parsed:
    """What the parser found in a sentence.

    Attributes:
        type: one of :data:`TYPES`; None for a sentence outside the grammar.
        equation_true: whether the equation in the sentence is true; None without an equation.
    """

    type: str | None
    equation_true: bool | None


def parse(sentence: str) -> Parsed:
    """Return the true type of a sentence and the truth of its equation.

    >>> parse(" That makes 22 + 9 = 31.")
    Parsed(type='compute', equation_true=True)
    >>> parse(" Roughly, 22 + 9 = 32.")
    Parsed(type='compute', equation_true=False)
    >>> parse("Hm.")
    Parsed(type=None, equation_true=None)
    """
    text = sentence.strip()
    kind = next((kind for kind, opening in _OPENINGS if opening.match(text)), None)
    found = _EQUATION.search(text)
    if found is None:
        return Parsed(kind, None)
    left, symbol, right, stated = int(found[1]), found[2], int(found[3]), int(found[4])
    return Parsed(kind, Change(symbol, right, "").apply(left) == stated)

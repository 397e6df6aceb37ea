"""Story arithmetic: word problems whose every quantity is known.

``Mia has 22 cards. First, Mia finds 9 more cards. Second, Mia doubles the cards. How many cards does Mia have now?``

A :class:`Story` is the exact state behind such a text. It can be written (:meth:`Story.question`), solved
(:attr:`Story.totals`) and drawn at random (:func:`draw_story`); everything the bundled pairs learn from and are tested
on is made here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

NAMES = ("Mia", "Tom", "Ana", "Ben", "Lia", "Max", "Zoe", "Sam", "Eva", "Leo")
THINGS = ("cards", "coins", "shells", "stamps", "marbles", "books", "beads", "apples")

#: How the story counts its changes, and so how many it can have.
ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth")

#: The smallest and the largest true running total; wrong steps may go past them.
MIN_TOTAL, MAX_TOTAL = 4, 99


@dataclass(frozen=True)
class Change:
    """One change to the running total: ``symbol`` is one of ``+ - * /`` and ``amount`` its right operand."""

    symbol: str
    amount: int
    verb: str

    def text(self, name: str, thing: str) -> str:
        """The change as the story tells it, without the full stop."""
        match self.symbol:
            case "+":
                return f"{name} {self.verb} {self.amount} more {thing}"
            case "-":
                return f"{name} {self.verb} {self.amount} {thing}"
            case "*":
                return f"{name} {self.verb} the {thing}"
            case _:
                return f"{name} {self.verb} the {thing} equally among {self.amount} boxes and keeps one"

    def apply(self, total: int) -> int | None:
        """The total after the change, or None where whole numbers do not allow it."""
        match self.symbol:
            case "+":
                return total + self.amount
            case "-":
                return total - self.amount if total >= self.amount else None
            case "*":
                return total * self.amount
            case _:
                return total // self.amount if total % self.amount == 0 else None


VERBS = {"+": ("finds", "buys"), "-": ("loses", "sells"), "*": ("doubles", "triples"), "/": ("shares",)}


@dataclass(frozen=True)
class Story:
    """A start value and the changes that follow it."""

    name: str
    thing: str
    start: int
    changes: tuple[Change, ...]

    @property
    def totals(self) -> tuple[int, ...]:
        """The true running totals, the start value first; one longer than ``changes``."""
        totals = [self.start]
        for change in self.changes:
            after = change.apply(totals[-1])
            if after is None:
                raise ValueError(f"{change} cannot be applied to {totals[-1]}")
            totals.append(after)
        return tuple(totals)

    @property
    def answer(self) -> int:
        return self.totals[-1]

    def told(self, i: int) -> str:
        """The sentence that tells change ``i``."""
        return f"{ORDINALS[i]}, {self.changes[i].text(self.name, self.thing)}."

    def question(self) -> str:
        told = [f"{self.name} has {self.start} {self.thing}."]
        told += [self.told(i) for i in range(len(self.changes))]
        return " ".join(told) + f" How many {self.thing} does {self.name} have now?"


def _draw_change(rng: random.Random, total: int, symbols: str) -> Change | None:
    symbol = rng.choice(symbols)
    verb = rng.choice(VERBS[symbol])
    match symbol:
        case "+":
            amount = rng.randint(2, 9)
        case "-":
            amount = rng.randint(2, 9)
        case "*":
            amount = 2 if verb == "doubles" else 3
        case _:
            amount = rng.randint(2, 9)
    after = Change(symbol, amount, verb).apply(total)
    return None if after is None or not MIN_TOTAL <= after <= MAX_TOTAL else Change(symbol, amount, verb)


def draw_story(rng: random.Random, n_changes: int, n_shares: int = 0) -> Story:
    """A random story with ``n_changes`` changes, of which exactly ``n_shares`` are sharing equally (exact division)."""
    if not 0 <= n_shares <= n_changes <= len(ORDINALS):
        raise ValueError(f"0 <= n_shares <= n_changes <= {len(ORDINALS)} must hold; got {n_shares} and {n_changes}")
    while True:
        shares = set(rng.sample(range(n_changes), n_shares))
        start = total = rng.randint(12, 60)
        changes: list[Change] = []
        for i in range(n_changes):
            # Sharing needs a total that divides: a few draws, then a fresh story.
            draws = (_draw_change(rng, total, "/" if i in shares else "++--*") for _ in range(40))
            change = next((drawn for drawn in draws if drawn is not None), None)
            if change is None:
                break
            changes.append(change)
            total = change.apply(total) or 0
        else:
            return Story(rng.choice(NAMES), rng.choice(THINGS), start, tuple(changes))

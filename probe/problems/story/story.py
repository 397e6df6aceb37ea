"""Story arithmetic: word problems in which every quantity is known.

``Mia has 22 cards. First, Mia finds 9 more cards. Second, Mia doubles the cards. How many cards does Mia have now?``

A :class:`Story` is the exact content of such a text: :meth:`Story.question` writes it, :attr:`Story.totals` solves it
and :func:`draw_story` makes a random one. The bundled pairs are trained and tested on these stories.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

NAMES = ("Mia", "Tom", "Ana", "Ben", "Lia", "Max", "Zoe", "Sam", "Eva", "Leo")
THINGS = ("cards", "coins", "shells", "stamps", "marbles", "books", "beads", "apples")

#: The words that count the changes of a story, and so the largest number of changes.
ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth")

#: The smallest and the largest true running total; wrong steps can leave this range.
MIN_TOTAL, MAX_TOTAL = 4, 99


@dataclass(frozen=True)
class Change:
    """One change to the running total."""

    symbol: str
    """The operation, one of ``+ - * /``."""
    amount: int
    """The right operand."""
    verb: str
    """The verb that tells the change."""

    def text(self, name: str, thing: str) -> str:
        """Return the change as the story tells it, without the full stop."""
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
        """Return the total after the change; None where the result is not a whole number from 0."""
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
    """The person in the story."""
    thing: str
    """What is counted, in the plural."""
    start: int
    """The first total."""
    changes: tuple[Change, ...]
    """The changes in the order in which they are told."""

    @property
    def totals(self) -> tuple[int, ...]:
        """The true running totals: the start value, then the total after each change."""
        totals = [self.start]
        for change in self.changes:
            after = change.apply(totals[-1])
            if after is None:
                raise ValueError(f"{change} cannot be applied to {totals[-1]}")
            totals.append(after)
        return tuple(totals)

    @property
    def answer(self) -> int:
        """The last total."""
        return self.totals[-1]

    def told(self, i: int) -> str:
        """Return the sentence that tells change ``i``, counted from 0."""
        return f"{ORDINALS[i]}, {self.changes[i].text(self.name, self.thing)}."

    def question(self) -> str:
        """Return the story and its question as one text."""
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
    """Make a random story.

    Args:
        rng: the source of every random choice.
        n_shares: the number of changes that share equally, which needs exact division.

    Raises:
        ValueError: if there are fewer changes than shares, or more changes than ordinals.
    """
    if not 0 <= n_shares <= n_changes <= len(ORDINALS):
        raise ValueError(f"0 <= n_shares <= n_changes <= {len(ORDINALS)} must hold; got {n_shares} and {n_changes}")
    while True:
        shares = set(rng.sample(range(n_changes), n_shares))
        start = total = rng.randint(12, 60)
        changes: list[Change] = []
        for i in range(n_changes):
            # Sharing needs a total that can be divided: a few attempts, then a new story.
            attempts = (_draw_change(rng, total, "/" if i in shares else "++--*") for _ in range(40))
            change = next((made for made in attempts if made is not None), None)
            if change is None:
                break
            changes.append(change)
            total = change.apply(total) or 0
        else:
            return Story(rng.choice(NAMES), rng.choice(THINGS), start, tuple(changes))

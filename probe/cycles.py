"""Cycles: where tokens or a text repeat themselves at their end."""

from collections.abc import Sequence
from typing import Any


def end_cycle(items: Sequence[Any], least: int = 1) -> tuple[int, int] | None:
    """Find the cycle in which tokens or a text end: the shortest that occurs at least 4 times in a row.

    The last time may be cut.

    Args:
        items: tokens, or a text.
        least: the least number of items that all times have together.

    Returns:
        Where the first time begins, and the number of items of one time; None if there is no cycle.

    >>> end_cycle("I see. No, no, no, no, no")
    (8, 4)
    """
    repeats = 4
    # In reverse, the end has period p as far as the items agree with themselves moved by p.
    back = items[::-1]
    agree = _agreements(back)
    fits = (p for p in range(1, len(back) // repeats + 1) if p + agree[p] >= max(repeats * p, least))
    period = next(fits, None)
    return None if period is None else (len(back) - period - agree[period], period)


def _agreements(items: Sequence[Any]) -> list[int]:
    """For each place, the number of items from it on that equal the items from the start on (the Z algorithm)."""
    n = len(items)
    agree = [n] + [0] * (n - 1) if n else []
    left = right = 0  # the stretch furthest to the right that is known to equal the start
    for at in range(1, n):
        size = min(right - at, agree[at - left]) if at < right else 0
        while at + size < n and items[size] == items[at + size]:
            size += 1
        agree[at] = size
        if at + size > right:
            left, right = at, at + size
    return agree

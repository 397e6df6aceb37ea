"""Where a sequence ends in a cycle, in time linear in its length."""

from collections.abc import Sequence
from typing import Any

_REPEATS = 4


def end_cycle(items: Sequence[Any], least: int) -> tuple[int, int] | None:
    """Find the cycle in which a sequence ends, at least four times in a row; the last time may be cut.

    Args:
        items: tokens, or a text.
        least: the least number of items that all its times have together.

    Returns:
        Where it begins and how many items one time has; None if the sequence does not end in a cycle.

    >>> end_cycle("I see. No, no, no, no, no", 12)
    (8, 4)
    """
    # In reverse, the end has period p as far as it agrees with itself moved by p.
    back = items[::-1]
    agree = _agreements(back)
    n = len(back)
    fits = (p for p in range(1, n // _REPEATS + 1) if p + agree[p] >= max(_REPEATS * p, least))
    period = next(fits, None)
    return None if period is None else (n - period - agree[period], period)


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

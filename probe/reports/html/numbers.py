"""How numbers and intervals are written: the same on pages, in figures and on the terminal."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from probe.statistics import write_p

MISSING = "–"

Write = Callable[[float | None], str]
"""Writes one number."""


def percent(share: float | None, digits: int = 0) -> str:
    """Write a share in percent.

    >>> percent(0.784), percent(-0.28), percent(0.0471, 1), percent(None), percent(math.nan)
    ('78%', '−28%', '4.7%', '–', '–')
    """
    return f"{_signed(100 * share, digits)}%" if _known(share) else MISSING


def number(value: float | None, digits: int = 2) -> str:
    """Write a number with a fixed number of decimal places.

    >>> number(3.14159), number(12345, 0), number(None)
    ('3.14', '12,345', '–')
    """
    return _signed(value, digits) if _known(value) else MISSING


def p_value(p: float | None) -> str:
    """Write a p value in a table whose heading says that it is one.

    >>> p_value(0.0312), p_value(0.00001), p_value(None)
    ('0.031', '< 0.001', '–')
    """
    return write_p(p).removeprefix("p ").removeprefix("= ") or MISSING


def plural(n: int, noun: str) -> str:
    """Write a number with its noun.

    >>> plural(1, "problem"), plural(0, "problem"), plural(1200, "problem")
    ('1 problem', '0 problems', '1,200 problems')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def points(share: float | None, digits: int = 0) -> str:
    """Write a share in percent without the sign, as in the interval beside a percentage.

    >>> points(0.784)
    '78'
    """
    return percent(share, digits).removesuffix("%")


def interval(ci: Sequence[float | None] | None, write: Write = points) -> str:
    """Write an interval; nothing where there is none.

    Args:
        ci: both ends.
        write: how each end is written: in percent unless given.

    >>> interval([0.716, 0.84]), interval([0.716, 0.84], number), interval(None)
    ('[72, 84]', '[0.72, 0.84]', '')
    """
    return f"[{write(ci[0])}, {write(ci[1])}]" if ci is not None and all(map(_known, ci)) else ""


def value_and_interval(entry: Any) -> tuple[float | None, tuple[float, float] | None]:
    """Read an estimate as the files of a run hold it: ``{"value": 0.8, "ci": [0.7, 0.9]}``, a bare number, or None.

    >>> value_and_interval({"value": 0.8, "ci": None}), value_and_interval(0.5)
    ((0.8, None), (0.5, None))
    """
    if not isinstance(entry, Mapping):
        return entry, None
    ci = entry.get("ci")
    return entry.get("value"), (ci[0], ci[1]) if ci and all(map(_known, ci)) else None


def estimate(entry: Any, write: Write = percent) -> str:
    """Write an estimate with its interval, if there is one.

    Args:
        entry: see :func:`value_and_interval`.
        write: how each number is written. In percent, the ends of the interval have no sign of their own.

    >>> estimate({"value": 0.8, "ci": [0.716, 0.84]}), estimate({"value": 0.8, "ci": None}, number)
    ('80% [72, 84]', '0.80')
    """
    value, ci = value_and_interval(entry)
    return f"{write(value)} {interval(ci, points if write is percent else write)}".rstrip()


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _signed(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    # A negative number that rounds to zero is zero; a minus is not a hyphen.
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text.replace("-", "−")

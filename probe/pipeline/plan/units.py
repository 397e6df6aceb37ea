"""Bytes, counts and seconds as people write them; this file needs no torch."""

import re

from probe.errors import ProbeError

_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def as_bytes(text: str) -> int:
    """Read an amount of memory.

    Args:
        text: a number and a unit: 80GB and 80G are 80 · 10⁹ bytes, 80GiB are 80 · 2³⁰.

    Raises:
        ProbeError: if it is not an amount above 0.

    >>> as_bytes("80GB"), as_bytes("1.5 GiB")
    (80000000000, 1610612736)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    if match is None or not float(match[1]) or (match[3] and not match[2]):
        raise ProbeError(f"{text!r} is not an amount of memory; write it as 80GB or 640GiB")
    number, unit, binary = match.groups()
    return int(float(number) * (_BINARY if binary else _BYTES)[unit])


def said_bytes(amount: float) -> str:
    """Write an amount of bytes in three digits.

    >>> said_bytes(15.23e9), said_bytes(340), said_bytes(0)
    ('15.2 GB', '340 B', '0 B')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{_digits(amount)} {unit}"
        amount /= 1000
    return f"{_digits(amount)} TB"


def said_count(number: float) -> str:
    """Write a count in three digits.

    >>> said_count(600), said_count(1_640_000), said_count(0)
    ('600', '1.64M', '–')
    """
    for unit in ("", "k", "M", "B"):
        if number < 999.5:
            return f"{_digits(number)}{unit}" if number else "–"
        number /= 1000
    return f"{_digits(number)}T"


def said_seconds(seconds: float) -> str:
    """Write a duration in two digits, as it is estimated and not measured.

    >>> said_seconds(0.4), said_seconds(95), said_seconds(7000), said_seconds(200_000)
    ('1 s', '1.6 min', '1.9 h', '2.3 d')
    """
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.4 * size:
            return f"{seconds / size:.2g} {unit}" if seconds < 99.5 * size else f"{seconds / size:.0f} {unit}"
    return f"{max(1, round(seconds))} s"


def _digits(number: float) -> str:
    return f"{number:.3g}" if number < 100 else f"{number:.0f}"

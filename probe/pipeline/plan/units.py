"""Bytes, counts and seconds as people write them; this file needs no torch."""


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

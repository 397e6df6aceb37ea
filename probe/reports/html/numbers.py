"""How numbers are written, the same on the page, in the figures and on the terminal."""

from collections.abc import Sequence

MISSING = "–"


def percent(share: float | None, digits: int = 0) -> str:
    """
    >>> percent(0.784), percent(-0.28), percent(0.0471, 1), percent(None)
    ('78%', '−28%', '4.7%', '–')
    """
    return MISSING if share is None else f"{_signed(100 * share, digits)}%"


def interval(low_high: Sequence[float] | None) -> str:
    """An interval of shares, in percent.

    >>> interval([0.716, 0.84]), interval([-0.05, 0.1]), interval(None)
    ('[72, 84]', '[−5, 10]', '')
    """
    return "" if low_high is None else f"[{_signed(100 * low_high[0], 0)}, {_signed(100 * low_high[1], 0)}]"


def number(value: float | None, digits: int = 2) -> str:
    """
    >>> number(3.14159), number(12345, 0), number(None)
    ('3.14', '12,345', '–')
    """
    return MISSING if value is None else _signed(value, digits)


def _signed(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    # A negative number that rounds to zero is zero; a minus is not a hyphen.
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text.replace("-", "−")

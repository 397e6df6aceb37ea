"""Local, deterministic grading: a grader compares the answer found in a text with the known one."""

import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from probe.config import nearest
from probe.errors import ProbeError
from probe.problems.numbers import is_percentage, read_number
from probe.problems.worker import SECONDS, CallFailed, worker


@dataclass(frozen=True)
class Grade:
    """The grade of one text."""

    answer: str | None
    """The answer found in the text; None if there is none."""
    correct: bool
    """Whether the answer is right."""
    failed: bool = False
    """Whether the grader could not decide; such a text is excluded and counted, not scored as wrong."""


def exact(answer: str, truth: str) -> bool | None:
    """Whether both are the same text, or, where the known answer is a number, the same number.

    White space, dollar signs, a final dot and ``\\dfrac`` for ``\\frac`` make no difference. A choice may be written
    "B", "(B)", "B." or ``\\text{(B)}``.
    """
    return _written(answer) == _written(truth) or (
        _PLAIN_NUMBER.fullmatch(truth) is not None and numeric(answer, truth)
    )


_PLAIN_NUMBER = re.compile(r"-?[0-9][0-9,./]*")


def _written(text: str) -> str:
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1", text.strip().strip("$*").strip())
    text = re.sub(r"([_^])\{(\w)\}", r"\1\2", text)
    text = re.sub(r"\\[dtc]frac", r"\\frac", re.sub(r"\\(?:left|right|[,;:! ])(?![a-zA-Z])", "", text))
    text = " ".join(text.removesuffix(".").split())
    text = re.sub(r"(?<![\w]) | (?![\w])", "", text)  # white space beside a sign: "(1, 2)" and "x + 1"
    return re.sub(r"^\(?([A-J])[).]?$", r"\1", text)


def numeric(answer: str, truth: str) -> bool | None:
    """Whether both are exactly the same number: 0.5 is 1/2, 1,000 is 1000, and 50% is 50 as well as 0.5."""
    value, known = read_number(answer), read_number(truth)
    if value is None or known is None:
        return False
    if is_percentage(answer) != is_percentage(truth):
        return known in (value, value / 100) if is_percentage(answer) else value in (known, known / 100)
    return value == known


def math_verify(answer: str, truth: str) -> bool | None:
    """Whether both are the same text, number or mathematical object; None if it cannot be decided in ten seconds.

    Objects are compared by the math-verify library.
    """
    if exact(answer, truth):
        return True
    if read_number(answer) is not None and read_number(truth) is not None:
        return numeric(answer, truth)
    if len(answer) > LONGEST:  # no real answer is so long, and parsing it could take very long
        return False
    if _BASED.search(answer) or _BASED.search(truth):
        return False  # the library does not read the base of "17_8"
    try:
        return worker().call("verify", answer, truth, seconds=SECONDS)
    except CallFailed:
        return None


_BASED = re.compile(r"[0-9]_\{?[0-9]")
LONGEST = 1000
"""Longer answers are wrong without being parsed."""

Grader = Callable[[str, str], bool | None]
"""Takes the answer found and the known one; returns right, wrong or, where it cannot decide, None."""
GRADERS: dict[str, Grader] = {"exact": exact, "numeric": numeric, "math-verify": math_verify}


def find_grader(name: str) -> Grader:
    """Return the grader called ``name``.

    Raises:
        ProbeError: if no grader has that name, or its library is not installed.
    """
    if name not in GRADERS:
        raise ProbeError(f"unknown grader {name!r}; {nearest(name, GRADERS)}")
    if name == "math-verify" and importlib.util.find_spec("math_verify") is None:
        raise ProbeError("the grader math-verify is not installed; run: pip install 'probe-interp[math]'")
    return GRADERS[name]


def unreadable(grader: str, truths: Sequence[str]) -> list[int]:
    """Return the places of the known answers that a grader cannot read, so that no answer could be right.

    Raises:
        ProbeError: for an unknown grader.
    """
    find_grader(grader)
    if grader == "exact":
        return []
    places = [i for i, truth in enumerate(truths) if read_number(truth) is None]
    if grader == "numeric" or not places:
        return places
    try:
        return [places[i] for i in worker().call("unreadable", [truths[i] for i in places], seconds=300)]
    except CallFailed as reason:
        raise ProbeError(f"math-verify cannot read the known answers ({reason}); use the grader 'exact'") from None

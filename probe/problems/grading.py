"""Local, deterministic grading: a grader compares the answer found in a text with the known one."""

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from probe.config import nearest
from probe.errors import ProbeError
from probe.problems.numbers import LONGEST, is_percentage, is_plain_number, read_number
from probe.problems.worker import SECONDS, CallFailed, worker


@dataclass(frozen=True)
class Grade:
    """The grade of one text."""

    answer: str | None
    """The answer found in the text; None if there is none."""
    correct: bool
    """Whether the answer is right."""
    failed: bool = False
    """Whether the grader could not decide, or the problem has no known answer. Such a text is excluded and counted, not
    scored as wrong."""


def exact(answer: str, truth: str) -> bool | None:
    """Whether both are the same text, or, where the known answer is a number, the same number.

    White space, dollar signs, a final dot and ``\\dfrac`` for ``\\frac`` make no difference. A choice may be written
    "B", "(B)", "B." or ``\\text{(B)}``.
    """
    return _written(answer) == _written(truth) or (is_plain_number(truth) and numeric(answer, truth))


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
    if len(answer) > LONGEST:
        return False
    if _BASED.search(answer) or _BASED.search(truth):
        return False  # the library does not read the base of "17_8"
    try:
        return worker().call("verify", answer, truth, seconds=SECONDS)
    except CallFailed:
        return None


_BASED = re.compile(r"[0-9]_\{?[0-9]")


def close(answer: str, truth: str) -> bool | None:
    """Whether both are numbers that differ by at most 5 % of the known one, as SciBench compares measured quantities.

    A unit in LaTeX after the number is not compared.
    """
    value, known = read_number(answer), read_number(truth)
    if value is None:
        value = read_number(_UNIT.sub("", answer))
    return value is not None and known is not None and abs(value - known) <= abs(known) / 20


_UNIT = re.compile(r"[\s~]*\\(?:mathrm|text|textrm|rm|operatorname)\b.*", re.DOTALL)

Grader = Callable[[str, str], bool | None]
"""Takes the answer found and the known one; returns right, wrong or, where it cannot decide, None."""
GRADERS: dict[str, Grader] = {"exact": exact, "numeric": numeric, "math-verify": math_verify, "close": close}


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


@dataclass(frozen=True)
class ByProblem:
    """Grades each problem of a set with its own grader.

    Raises:
        ProbeError: if there is no such grader, or its library is not installed.
    """

    graders: Mapping[str, str]
    """The name of the grader of each problem, by the problem's id."""

    def __post_init__(self) -> None:
        for name in sorted(set(self.graders.values())):
            find_grader(name)

    def __call__(self, answer: str, problem: "HasAnswer") -> bool | None:
        return None if problem.answer is None else find_grader(self.graders[problem.id])(answer, problem.answer)


class HasAnswer(Protocol):
    """A problem, of which only the id and the known answer are read."""

    @property
    def id(self) -> str: ...
    @property
    def answer(self) -> str | None: ...


def readable(grader: str, truth: str) -> bool:
    """Whether a grader can read a known answer; if not, no answer could be right."""
    if grader in ("numeric", "close"):
        return read_number(truth) is not None
    return _written(truth) != "" and (grader == "exact" or len(truth) <= LONGEST)


def refuse_unreadable(name: str, grader: str, answers: Sequence[tuple[str, str]]) -> None:
    """Refuse known answers that a grader cannot read.

    Args:
        name: where the answers come from.
        grader: the name of the grader.
        answers: for each problem how a message names it, and its known answer.

    Raises:
        ProbeError: if it cannot read some; the message says how many, and names them.
    """
    bad = [f"{problem}: {_short(answer)}" for problem, answer in answers if not readable(grader, answer)]
    if bad:
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        other = "'exact' or 'math-verify'" if grader in ("numeric", "close") else "'exact'"
        raise ProbeError(
            f"the grader {grader!r} cannot read {len(bad)} of {len(answers)} known answers of {name} "
            f"({'; '.join(bad[:_NAMED])}{more}); correct them, or use the grader {other}"
        )


_NAMED = 20


def _short(answer: str) -> str:
    return repr(answer if len(answer) <= 40 else answer[:37] + "...")

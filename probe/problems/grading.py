"""Local, deterministic grading: a grader compares the answer found in a text with the known one."""

import re
import threading
import tokenize
from collections.abc import Callable
from dataclasses import dataclass

from probe.config import nearest
from probe.errors import ProbeError
from probe.problems.numbers import read_number


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
    """Whether both are the same text, apart from white space, dollar signs, a final dot and ``\\dfrac`` for ``\\frac``.

    A choice may be written "B", "(B)", "B." or ``\\text{(B)}``.
    """
    return _written(answer) == _written(truth)


def _written(text: str) -> str:
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text.strip().strip("$").strip())
    text = re.sub(r"\\[dtc]frac", r"\\frac", text)
    text = text.removesuffix(".").strip()
    return re.sub(r"^\(?([A-J])[).]?$", r"\1", text)


def numeric(answer: str, truth: str) -> bool | None:
    """Whether both are exactly the same number: 0.5 is 1/2, 1,000 is 1000, and 50% is 50."""
    value = read_number(answer)
    return value is not None and value == read_number(truth)


def math_verify(answer: str, truth: str) -> bool | None:
    """Whether both are the same mathematical object by the math-verify library; None if it cannot decide."""
    if len(answer) > 1000:  # no real answer is so long, and parsing it could take very long
        return False
    import math_verify as library

    def verify() -> bool | None:
        # Its time limits are signals, which only the main thread can set; other threads run without a limit.
        seconds = 5 if threading.current_thread() is threading.main_thread() else None
        gold, given = (library.parse(_as_latex(text), parsing_timeout=seconds) for text in (truth, answer))  # pyright: ignore[reportArgumentType]
        return library.verify(gold, given, timeout_seconds=seconds) if gold else None

    return guarded(verify)


VERIFIER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    RuntimeError,  # RecursionError among them
    SyntaxError,
    TypeError,
    ValueError,
    re.error,
    tokenize.TokenError,
)
"""What the verifiers of math-verify and reasoning-gym can raise on the text of a model, beside SymPy's own errors."""


def guarded(verify: Callable[[], bool | None]) -> bool | None:
    """Call a verifier of another library; None where it raises an error on the text of a model."""
    from sympy.polys.polyerrors import BasePolynomialError  # slow to import

    try:
        return verify()
    except (*VERIFIER_ERRORS, BasePolynomialError):
        return None


def _as_latex(text: str) -> str:
    return f"${text.replace(chr(92) + '$', '').replace('$', '')}$"


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
    if name == "math-verify":
        try:
            import math_verify  # noqa: F401
        except ImportError:
            raise ProbeError("the grader math-verify is not installed; run: pip install 'probe-interp[math]'") from None
    return GRADERS[name]

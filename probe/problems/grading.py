"""Local, deterministic grading: :func:`extract_answer` finds the answer, a grader compares it with the known one."""

import re
import threading
import tokenize
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from probe.config import nearest
from probe.errors import ProbeError


@dataclass(frozen=True)
class Grade:
    """The grade of one text."""

    answer: str | None
    """The answer found in the text; None if there is none."""
    correct: bool
    """Whether the answer is right."""
    failed: bool = False
    """Whether the grader could not decide; such a text is excluded and counted, not scored as wrong."""


#: Digits, with or without thousands commas, a decimal part or a denominator; a sign only if nothing precedes it.
_NUMBER = re.compile(
    r"(?:(?<![\w.)])[-+])?(?<![\w.])(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?"
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
#: "the answer is X", "**Answer:** X"; X ends with the sentence or line, and the dot in 3.5 does not end a sentence.
_STATED = re.compile(
    r"\banswer\b[\s*_]*(?:is|:|=)[\s*_:]*([^\n]*?)\s*(?:[.!?;]+[*_`\"')]*(?=\s|$)|\n|$)", re.IGNORECASE
)


def extract_answer(text: str, think_close: str = "</think>") -> str | None:
    """Find the final answer in a text.

    Only the text after the last ``think_close`` is searched, if there is one: first for the last ``\\boxed{...}``, then
    for the last "answer is ...", then for the last number.

    Args:
        text: what a model wrote.
        think_close: the text that ends the thinking.

    Returns:
        The answer as written; None if there is none.

    >>> extract_answer("2 + 2 = 4.</think> So the answer is 5.")
    '5'
    >>> extract_answer(r"Hence $x = \\boxed{\\frac{1}{2}}$, not 3.")
    '\\\\frac{1}{2}'
    >>> extract_answer("I give up.")
    """
    text = text.rpartition(think_close)[2].replace("−", "-")
    if boxed := _last_boxed(text):
        return boxed
    for stated in reversed(_STATED.findall(text)):
        answer = stated.strip(" \t*_`\"'")
        if len(answer) > 2 and answer[0] == answer[-1] == "$":
            answer = answer[1:-1].strip()
        if answer:
            return answer
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None


def _last_boxed(text: str) -> str:
    """The content of the last closed box that is not empty, or ""; one pass, however deeply the braces nest."""
    boxes = {found.end() for found in _BOXED.finditer(text)}
    unclosed: list[int] = []
    last, inside = -1, ""
    for brace in re.finditer(r"[{}]", text):
        if brace[0] == "{":
            unclosed.append(brace.end())
        elif unclosed and (start := unclosed.pop()) in boxes and start > last and text[start : brace.start()].strip():
            last, inside = start, text[start : brace.start()].strip()
    return inside


def read_number(text: str) -> Fraction | None:
    """Read the number in an answer exactly; None if the answer contains no number or several.

    Thousands commas, currency and percent signs and units are ignored; in an equation the right side counts.

    >>> read_number("$1,234.50"), read_number("x = 3/4"), read_number("42 apples"), read_number("3 or 4")
    (Fraction(2469, 2), Fraction(3, 4), Fraction(42, 1), None)
    """
    text = text.rpartition("=")[2].replace("−", "-")
    text = re.sub(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", text)
    text = text.replace("{,}", ",").replace("\\!", "").replace("\\,", "")
    text = re.sub(r"([-+])\s*\\?\$", r"\1", text)
    found = _NUMBER.findall(text)
    # Python refuses to parse integers of thousands of digits, and no real answer has them.
    if len(found) != 1 or len(found[0]) > 1000:
        return None
    whole, _, under = found[0].replace(",", "").partition("/")
    if under and int(under) == 0:
        return None
    return Fraction(whole) / int(under or 1)


def exact(answer: str, truth: str) -> bool | None:
    """Whether both are the same characters, apart from white space at the ends."""
    return answer.strip() == truth.strip()


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

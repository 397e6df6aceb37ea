"""Is an answer right? Local, deterministic judgements; no model is asked.

First the answer is found in a model's text (:func:`extract_answer`), then a grader compares it with the known one.
"""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from probe.config import nearest
from probe.errors import ProbeError


@dataclass(frozen=True)
class Grade:
    """What became of one answer."""

    answer: str | None
    """The answer found in the text, or None if there is none."""
    correct: bool
    failed: bool = False
    """No judgement could be made (the grader gave up): to be left out and counted, not scored as wrong."""


#: Digits, with or without thousands commas, a decimal part, a denominator; a sign only where nothing stands before it.
_NUMBER = re.compile(
    r"(?:(?<![\w.)])[-+])?(?<![\w.])(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?"
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
#: "the answer is X", "**Answer:** X"; X goes to the end of the sentence or line, and a dot inside 3.5 is no end.
_STATED = re.compile(
    r"\banswer\b[\s*_]*(?:is|:|=)[\s*_:]*([^\n]*?)\s*(?:[.!?;]+[*_`\"')]*(?=\s|$)|\n|$)", re.IGNORECASE
)


def extract_answer(text: str, think_close: str = "</think>") -> str | None:
    """The final answer that a text gives, or None.

    Only what follows the last ``think_close`` counts, if there is one. In it the last ``\\boxed{...}`` is taken or, if
    there is none, the last "answer is ..." or, if there is none, the last number.

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
    """What the last closed box that is not empty holds; "" if there is none. One pass, however deep the braces."""
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
    """The one number that an answer holds, exactly; None if it holds none or several.

    Thousands commas, currency and percent signs and units are passed over; of an equation the right side counts.

    >>> read_number("$1,234.50"), read_number("x = 3/4"), read_number("42 apples"), read_number("3 or 4")
    (Fraction(2469, 2), Fraction(3, 4), Fraction(42, 1), None)
    """
    text = text.rpartition("=")[2].replace("−", "-")
    text = re.sub(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", text)
    text = text.replace("{,}", ",").replace("\\!", "").replace("\\,", "")
    text = re.sub(r"([-+])\s*\\?\$", r"\1", text)
    found = _NUMBER.findall(text)
    # Python refuses to read integers of thousands of digits, and no honest answer has them.
    if len(found) != 1 or len(found[0]) > 1000:
        return None
    whole, _, under = found[0].replace(",", "").partition("/")
    if under and int(under) == 0:
        return None
    return Fraction(whole) / int(under or 1)


def exact(answer: str, truth: str) -> bool | None:
    """The same characters, white space at the ends aside."""
    return answer.strip() == truth.strip()


def numeric(answer: str, truth: str) -> bool | None:
    """The same number, exactly: 0.5 is 1/2, 1,000 is 1000, and 50% is 50."""
    value = read_number(answer)
    return value is not None and value == read_number(truth)


def math_verify(answer: str, truth: str) -> bool | None:
    """The same mathematical object, by the math-verify library; None if it cannot read the known answer."""
    if len(answer) > 1000:  # no honest answer is so long, and parsing it could take for ever
        return False
    import math_verify as library

    # Its time limits are signals, which only a main thread can have; in others it runs without.
    seconds = 5 if threading.current_thread() is threading.main_thread() else None
    gold, given = (library.parse(_as_latex(text), parsing_timeout=seconds) for text in (truth, answer))  # pyright: ignore[reportArgumentType]
    return library.verify(gold, given, timeout_seconds=seconds) if gold else None


def _as_latex(text: str) -> str:
    return f"${text.replace(chr(92) + '$', '').replace('$', '')}$"


#: A grader takes the answer found and the known one, and says right, wrong or, with None, that it cannot say.
Grader = Callable[[str, str], bool | None]
GRADERS: dict[str, Grader] = {"exact": exact, "numeric": numeric, "math-verify": math_verify}


def find_grader(name: str) -> Grader:
    """The grader called ``name``.

    Raises:
        ProbeError: if there is none of that name, or its library is not installed.
    """
    if name not in GRADERS:
        raise ProbeError(f"unknown grader {name!r}; {nearest(name, GRADERS)}")
    if name == "math-verify":
        try:
            import math_verify  # noqa: F401
        except ImportError:
            raise ProbeError("the math-verify grader is not installed; pip install 'probe-interp[math]'") from None
    return GRADERS[name]

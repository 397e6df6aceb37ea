"""Whether an expression reaches the target of a Countdown problem with its numbers."""

import ast
import re
from collections import Counter
from fractions import Fraction

from probe.problems.problem_set import Problem

_OPERATIONS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}
#: A longer answer is no expression of a handful of numbers.
_LONGEST = 200


def reaches_target(answer: str, problem: Problem) -> bool:
    """Whether an answer is an expression of all the given numbers, each used once, that equals the target.

    The numbers and the target are those of the known answer, ``an expression of 19, 36, 55 that equals 72``. A second
    side that repeats the target (``55 + 36 - 19 = 72``) is allowed.

    >>> problem = Problem("a", "…", "an expression of 19, 36, 55 that equals 72")
    >>> reaches_target("55 + 36 - 19 = 72", problem), reaches_target("36 * 2", problem)
    (True, False)
    """
    *numbers, target = (int(each) for each in re.findall(r"\d+", problem.answer or ""))
    sides = _plain(answer).split("=")
    if len(sides) > 2 or len(answer) > _LONGEST:
        return False
    used: Counter[int] = Counter()
    try:
        values = [
            _value(ast.parse(side.strip(), mode="eval").body, used if i == 0 else Counter())
            for i, side in enumerate(sides)
        ]
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return False
    return used == Counter(numbers) and all(value == target for value in values)


def _plain(answer: str) -> str:
    """An expression without LaTeX."""
    for written, sign in (
        ("\\times", "*"),
        ("\\cdot", "*"),
        ("\\div", "/"),
        ("×", "*"),
        ("·", "*"),
        ("÷", "/"),
        ("−", "-"),
    ):
        answer = answer.replace(written, sign)
    answer = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", answer)
    return re.sub(r"\\(?:left|right)|[$\\]", "", answer).replace("[", "(").replace("]", ")")


def _value(node: ast.AST, used: Counter[int]) -> Fraction:
    match node:
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            used[number] += 1
            return Fraction(number)
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _OPERATIONS:
            return _OPERATIONS[type(operation)](_value(left, used), _value(right, used))
    raise ValueError(node)

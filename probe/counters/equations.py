"""The equations in a text, with the expression on the left side as a tree."""

import ast
import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

_OPERATORS = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}
_SPELT = (
    (r"\\times|\\cdot|[×·∗]|(?<=[\d)])\s*[xX]\s*(?=[\d(])", "*"),
    (r"\\div|÷", "/"),
    (r"[−–—]", "-"),
    (r"’", "'"),
    (r"\\ne(q)?\b|!=|=/=", "≠"),
    (r"\\[()\[\]]|\$|\*\*|\\(left|right)|`", ""),
    (r"(?<=\d),(?=\d{3}\b)", ""),
    # A number that only counts steps is not part of an expression.
    (r"(?im)\b(step|case|option)\s+\d+\s*[-:.)]", r"\1:"),
)
_NUMBER = r"(?<!\d)\d{1,15}(?:\.\d{1,15})?(?!\d)"
_SUM = rf"[(\[]*\b{_NUMBER}[)\]]*(?:\s*[-+*/]\s*[(\[]*{_NUMBER}[)\]]*)+"
_RELATION = (
    r"≠|==?|≈|->|→|=>|:(?=\s*-?\d)"
    r"|(?:is|does|would)(?:n't|\s*not)\s+(?:equal(?: to)?|make|give|reach)?"
    r"|,?\s*(?:which\s+|that\s+)?(?:equals?|is|gives?|makes?|yields?|gets\s+(?:me|us)(?:\s+to)?)"
    r"(?:\s+(?:equal\s+to|only|just|exactly))?"
)
_EQUATION = re.compile(
    rf"(?P<left>{_SUM})(?:\s*=\s*{_SUM})*\s*(?P<relation>{_RELATION})\s*"
    rf"(?P<right>-?{_NUMBER})(?!\s*[-+*/]\s*[\d(]|\.?\d)"
    rf"|(?<![-+*/\d.)])\b(?P<value>{_NUMBER})\s*=\s*(?P<reversed>{_SUM})(?!\s*[-+*/=])"
)


@dataclass(frozen=True)
class Sum:
    """An arithmetic expression: a number, or two expressions joined by an operation."""

    value: Fraction
    """The value of the expression."""
    symbol: str = ""
    parts: tuple["Sum", ...] = ()

    @property
    def numbers(self) -> tuple["Sum", ...]:
        """The numbers in the expression, from left to right."""
        return tuple(number for part in self.parts for number in part.numbers) if self.parts else (self,)

    def __str__(self) -> str:
        """The same text for expressions that differ only in the order of what is added or multiplied."""
        if not self.parts:
            return str(self.value)
        parts = [str(part) for part in self.parts]
        return f"({self.symbol.join(sorted(parts) if self.symbol in '+*' else parts)})"


@dataclass(frozen=True)
class Equation:
    """A statement that ``left`` equals ``stated``, or a denial of it."""

    start: int
    end: int
    """The characters that it spans."""
    left: Sum
    stated: Fraction
    denied: bool
    """Whether it says that the two are *not* equal, or asks whether they are."""


def spell(text: str) -> str:
    """Write operations as + - * /, and remove the markup of formulas."""
    for pattern, plain in _SPELT:
        text = re.sub(pattern, plain, text)
    return text


def equations(text: str) -> Iterator[Equation]:
    """Find the equations of a text from :func:`spell`, in order.

    >>> [str(each.left) for each in equations("So 6 * 4 = 24, and (24 - 3) / 7 = 21 / 7 = 3.")]
    ['(4*6)', '((24-3)/7)']
    """
    for found in _EQUATION.finditer(text):
        left = read_sum(found["left"] or found["reversed"])
        if left is not None:
            relation = found["relation"] or "="
            # "Is 94 * 4 - 61 = 309?" claims nothing.
            asked = text[found.end() :].lstrip().startswith("?")
            denied = asked or "≠" in relation or "n't" in relation or "not" in relation
            yield Equation(*found.span(), left, Fraction(found["right"] or found["value"]), denied)


def read_sum(text: str) -> Sum | None:
    """Parse an arithmetic expression; None if it is not one, or divides by zero."""
    text = text.strip().replace("[", "(").replace("]", ")")
    while text.count("(") > text.count(")") and text.startswith("("):
        text = text[1:]
    while text.count(")") > text.count("(") and text.endswith(")"):
        text = text[:-1]
    try:
        return _sum(ast.parse(text.strip(), mode="eval").body, text.strip())
    except (SyntaxError, ZeroDivisionError, ValueError, RecursionError, MemoryError):
        return None


def _sum(node: ast.expr, text: str) -> Sum:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        symbol, apply = _OPERATORS[type(node.op)]
        parts = (_sum(node.left, text), _sum(node.right, text))
        return Sum(apply(parts[0].value, parts[1].value), symbol, parts)
    # The digits themselves, because a float would not be exact.
    return Sum(Fraction(ast.get_source_segment(text, node) or ""))

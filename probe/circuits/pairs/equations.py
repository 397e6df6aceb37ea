"""Pairs of texts that differ in one digit of an equation: what a model computes, and what it takes to be true.

An equation is two numbers joined by an operation, an equals sign and a number, as in ``12 + 7 = 19``, ``3×4=12``,
``$1,200 - $50 = $1,150`` or ``6 \\times 7 = 42``.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import numpy as np
import torch

from probe.circuits.pairs.pairs import Pairs, Row, grouped
from probe.counters import read_sum
from probe.errors import NotApplicable
from probe.models import Model, check_frequencies
from probe.problems import Problem
from probe.traces import Trace

_NUMBER = r"\$?(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
_OPERATIONS = {
    **{sign: sign for sign in "+-*/"},
    **dict.fromkeys(("−", "–"), "-"),
    **dict.fromkeys(("×", "·", "x", r"\times", r"\cdot"), "*"),
    **dict.fromkeys(("÷", r"\div"), "/"),
}
_OPERATION = "|".join(map(re.escape, sorted(_OPERATIONS, key=len, reverse=True)))
_GAP = r"[^\S\n]*"
_EQUATION = re.compile(
    rf"(?<![\d.,)\]]){_NUMBER}{_GAP}({_OPERATION}){_GAP}{_NUMBER}{_GAP}={_GAP}{_NUMBER}"
    rf"(?!\.?\d|{_GAP}(?:{_OPERATION}|=){_GAP}\d)"
)
_CONTINUED = re.compile(rf"[\d)\]]{_GAP}(?:{_OPERATION}|=){_GAP}$")
"""What may not stand before an equation: of ``1 + 2 + 3 = 6`` no part is one. A dash that begins a line may."""


@dataclass(frozen=True)
class _Edit:
    """A text that ends within a trace, and the same text with other digits.

    Attributes:
        ends: where the text may end, as characters of the trace; the first end that the tokenizer allows is taken.
        whole: where the text that decides this ends.
        places: the characters that are changed.
    """

    ends: tuple[int, ...]
    whole: int
    places: tuple[int, ...]


def operand_pairs(
    model: Model, traces: Sequence[Trace], problems: Sequence[Problem], *, n_pairs: int = 48, seed: int = 0
) -> Pairs:
    """Make pairs of texts that end before the result of an equation and differ in the last digit of the right operand.

    The digit also differs where the operand was mentioned last before the equation, if it was. The right and the wrong
    next token are the model's own predictions; pairs for which these are equal are left out.

    Args:
        model: reads the texts, with its own prompt before them.
        traces: traces that contain equations.
        problems: the problem of each trace.
        n_pairs: the largest number of pairs.
        seed: seeds the choice of pairs.

    Raises:
        NotApplicable: if no equation of the traces gives a pair.
    """

    def edits(trace: Trace) -> Iterator[_Edit]:
        for found in equations_in(trace.text):
            mention = rf"(?<![\d.,]){re.escape(found[3])}(?![\d]|[.,]\d)"
            before = [each.end() for each in re.finditer(mention, trace.text[: found.start()])][-1:]
            result = found.start(4)
            bare = len(trace.text[:result].rstrip(" "))
            yield _Edit((result, bare), found.end(4), tuple(each - 1 for each in (*before, found.end(3))))

    return _paired(model, traces, problems, edits, n_pairs=n_pairs, seed=seed, differ=True)


def statement_pairs(
    model: Model, traces: Sequence[Trace], problems: Sequence[Problem], *, n_pairs: int = 48, seed: int = 0
) -> Pairs:
    """Make pairs of texts that end after a true equation, whose result has a wrong digit in the corrupt text.

    The next token may be the same for both texts, because the model need not comment on the equation.

    Args:
        model: reads the texts, with its own prompt before them.
        traces: traces that contain equations.
        problems: the problem of each trace.
        n_pairs: the largest number of pairs.
        seed: seeds the choice of pairs.

    Raises:
        NotApplicable: if the traces contain no true equation.
    """

    def edits(trace: Trace) -> Iterator[_Edit]:
        for sentence in trace.sentences:
            found = next(equations_in(trace.text, sentence.start, sentence.end), None)
            if found is not None and is_true(found):
                yield _Edit((sentence.end,), sentence.end, (found.end(4) - 1,))

    return _paired(model, traces, problems, edits, n_pairs=n_pairs, seed=seed, differ=False)


def equations_in(text: str, start: int = 0, end: int | None = None) -> Iterator[re.Match[str]]:
    """Find the equations of a text, such as ``22 + 9 = 31``; the groups are operand, sign, operand and result.

    Args:
        text: the text.
        start, end: the characters that are searched; None for the end of the text.
    """
    for found in _EQUATION.finditer(text, start, len(text) if end is None else end):
        if not _CONTINUED.search(text, max(0, found.start() - 16), found.start()):
            yield found


def is_true(found: re.Match[str]) -> bool:
    """Whether an equation of :func:`equations_in` is true."""
    first, sign, second, result = (found[i].replace(",", "") for i in range(1, 5))
    left = read_sum(f"{first} {_OPERATIONS[sign]} {second}")
    return left is not None and left.value == Fraction(result)


def _edited(text: str, places: Sequence[int]) -> str:
    """Raise each digit by two, modulo ten, which no slip by one or by ten does."""
    for at in places:
        text = f"{text[:at]}{(int(text[at]) + 2) % 10}{text[at + 1 :]}"
    return text


def _encoded(model: Model, problem: Problem, trace: Trace, edit: _Edit) -> tuple[list[int], list[int]] | None:
    """Prompt and text as token ids, clean and corrupt; None unless both have equally many tokens."""
    whole = model.encode(trace.text[: edit.whole], start=False)
    for end in edit.ends:
        clean = model.encode(trace.text[:end], start=False)
        # A result may share its token with the space before it; then the text ends before that space.
        if whole[: len(clean)] == clean:
            corrupt = model.encode(_edited(trace.text[:end], edit.places), start=False)
            prompt = model.prompt_ids(problem.question)
            usable = len(clean) == len(corrupt) and clean != corrupt
            return ([*prompt, *clean], [*prompt, *corrupt]) if usable else None
    return None


@torch.no_grad()
def _paired(
    model: Model,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    edits: Callable[[Trace], Iterator[_Edit]],
    *,
    n_pairs: int,
    seed: int,
    differ: bool,
) -> Pairs:
    ends = np.cumsum([sum(1 for _ in edits(trace)) for trace in traces])  # the edits themselves are made again
    total = int(ends[-1]) if len(ends) else 0
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).tolist()
    by_length: dict[int, list[Row]] = defaultdict(list)
    size = 0
    for at in order:
        if size == n_pairs:
            break
        i = int(np.searchsorted(ends, at, side="right"))
        edit = next(islice(edits(traces[i]), at - int(ends[i - 1] if i else 0), None))
        sides = _encoded(model, problems[i], traces[i], edit)
        if sides is None:
            continue
        model.check_ids(sides)
        check_frequencies(model.hf, len(sides[0]))
        ids = torch.tensor(sides, device=model.device)
        right, wrong = model.hf(ids, logits_to_keep=1).logits[:, -1].argmax(-1).tolist()
        if right != wrong or not differ:
            by_length[len(sides[0])].append((sides[0], sides[1], right, wrong))
            size += 1
    if not size:
        raise NotApplicable(
            f"no equation of the traces gives a usable pair of texts ({total} of the form 3 + 4 = 7 were found in "
            f"{len(traces)} traces): give more or other traces"
        )
    return grouped(model, by_length)

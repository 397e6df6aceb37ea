"""Pairs of texts that differ in one digit of an equation: what a model computes, and what it takes to be true."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch

from probe.circuits.pairs.pairs import Pairs, Row, grouped
from probe.counters import read_sum
from probe.errors import NotApplicable
from probe.models import Model, check_frequencies
from probe.problems import Problem
from probe.traces import Trace

_EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


def operand_pairs(
    model: Model, traces: Sequence[Trace], problems: Sequence[Problem], *, n_pairs: int = 48, seed: int = 0
) -> Pairs:
    """Make pairs of texts that end in an equals sign and differ in the last digit of the right operand.

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

    def edits(trace: Trace) -> Iterator[tuple[str, str]]:
        for found in _EQUATION.finditer(trace.text):
            end = found.end(3)
            before = [each.end() for each in re.finditer(rf"\b{found[3]}\b", trace.text[: found.start()])][-1:]
            yield trace.text[: end + 2], _edited(trace.text[: end + 2], [each - 1 for each in (*before, end)])

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

    def edits(trace: Trace) -> Iterator[tuple[str, str]]:
        for sentence in trace.sentences:
            found = _EQUATION.search(trace.text, sentence.start, sentence.end)
            if found is not None and _true(found):
                text = trace.text[: sentence.end]
                yield text, _edited(text, [found.end() - 1])

    return _paired(model, traces, problems, edits, n_pairs=n_pairs, seed=seed, differ=False)


def _true(found: re.Match[str]) -> bool:
    left = read_sum(f"{found[1]} {found[2]} {found[3]}")
    return left is not None and left.value == int(found[4])


def _edited(text: str, places: Sequence[int]) -> str:
    """Raise each digit by two, modulo ten, which no slip by one or by ten does."""
    for at in places:
        text = f"{text[:at]}{(int(text[at]) + 2) % 10}{text[at + 1 :]}"
    return text


def _encoded(model: Model, problem: Problem, *texts: str) -> list[list[int]] | None:
    """Prompt and text as token ids; None unless all texts have equally many tokens."""
    prompt = model.prompt_ids(problem.question)
    ids = [[*prompt, *model.encode(text, start=False)] for text in texts]
    return ids if len({len(each) for each in ids}) == 1 else None


@torch.no_grad()
def _paired(
    model: Model,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    edits: Callable[[Trace], Iterator[tuple[str, str]]],
    *,
    n_pairs: int,
    seed: int,
    differ: bool,
) -> Pairs:
    found = []
    for trace, problem in zip(traces, problems, strict=True):
        for texts in edits(trace):
            ids = _encoded(model, problem, *texts)
            if ids is not None:
                found.append(ids)
    model.check_ids(ids for pair in found for ids in pair)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed)).tolist()
    by_length: dict[int, list[Row]] = defaultdict(list)
    size = 0
    for at in order:
        if size == n_pairs:
            break
        clean, corrupt = found[at]
        check_frequencies(model.hf, len(clean))
        ids = torch.tensor(found[at], device=model.device)
        right, wrong = model.hf(ids, logits_to_keep=1).logits[:, -1].argmax(-1).tolist()
        if right != wrong or not differ:
            by_length[len(clean)].append((clean, corrupt, right, wrong))
            size += 1
    if not size:
        raise NotApplicable("no equation of the traces gives a usable pair of texts: give more or other traces")
    return grouped(model, by_length)

"""Pairs of texts that differ in one digit of an equation: what a model computes, and what it takes for true."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch

from probe.circuits.pairs import Pairs, grouped
from probe.counters import read_sum
from probe.errors import ProbeError
from probe.models import Model
from probe.problems import Problem
from probe.traces import Trace

_EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


def operand_pairs(
    model: Model, traces: Sequence[Trace], problems: Sequence[Problem], *, n: int = 48, seed: int = 0
) -> Pairs:
    """Texts up to an equals sign; the corrupt one has another last digit in the right operand, and where it was told.

    That is where the number was written last before the equation, if it was.

    What comes next is what the model itself says to each; where that is the same, the pair is left out.

    Raises:
        ProbeError: if no equation of the traces gives a pair.
    """

    def edits(trace: Trace) -> Iterator[tuple[str, str]]:
        for found in _EQUATION.finditer(trace.text):
            end = found.end(3)
            told = [each.end() for each in re.finditer(rf"\b{found[3]}\b", trace.text[: found.start()])][-1:]
            yield trace.text[: end + 2], _edited(trace.text[: end + 2], [each - 1 for each in (*told, end)])

    return _paired(model, traces, problems, edits, n, seed)


def statement_pairs(
    model: Model, traces: Sequence[Trace], problems: Sequence[Problem], *, n: int = 48, seed: int = 0
) -> Pairs:
    """Texts up to the end of a sentence with a true equation; in the corrupt one its result is wrong by a digit.

    The model need not say anything about it: what it says next may be the same.

    Raises:
        ProbeError: if the traces hold no true equation.
    """

    def edits(trace: Trace) -> Iterator[tuple[str, str]]:
        for sentence in trace.sentences:
            found = _EQUATION.search(trace.text, sentence.start, sentence.end)
            if found is not None and _true(found):
                text = trace.text[: sentence.end]
                yield text, _edited(text, [found.end() - 1])

    return _paired(model, traces, problems, edits, n, seed, told=False)


def _true(found: re.Match[str]) -> bool:
    left = read_sum(f"{found[1]} {found[2]} {found[3]}")
    return left is not None and left.value == int(found[4])


def _edited(text: str, places: Sequence[int]) -> str:
    """Each digit two higher (after 9 comes 0), which no slip of one or of ten gives."""
    for at in places:
        text = f"{text[:at]}{(int(text[at]) + 2) % 10}{text[at + 1 :]}"
    return text


def _encoded(model: Model, problem: Problem, *texts: str) -> list[list[int]] | None:
    """Prompt and text of each; None unless all have as many tokens."""
    prompt = model.prompt_ids(problem.question)
    ids = [[*prompt, *model.tokenizer(text, add_special_tokens=False).input_ids] for text in texts]
    return ids if len({len(each) for each in ids}) == 1 else None


@torch.no_grad()
def _paired(
    model: Model,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    edits: Callable[[Trace], Iterator[tuple[str, str]]],
    n: int,
    seed: int,
    told: bool = True,
) -> Pairs:
    found = []
    for trace, problem in zip(traces, problems, strict=True):
        for texts in edits(trace):
            ids = _encoded(model, problem, *texts)
            if ids is not None:
                found.append(ids)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed)).tolist()
    by_length: dict[int, list[tuple[list[int], list[int], int, int]]] = defaultdict(list)
    size = 0
    for at in order:
        if size == n:
            break
        clean, corrupt = found[at]
        right, wrong = model.hf(torch.tensor(found[at], device=model.device)).logits[:, -1].argmax(-1).tolist()
        if right != wrong or not told:
            by_length[len(clean)].append((clean, corrupt, right, wrong))
            size += 1
    if not size:
        raise ProbeError("no equation of the traces gives a pair whose next tokens differ: give other traces")
    return grouped(model, by_length)

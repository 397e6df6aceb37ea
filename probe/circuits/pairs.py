"""Pairs of texts that differ in what comes next, of one length; and what tells the two by the logits."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.circuits.lens import Metric
from probe.config import nearest
from probe.errors import ProbeError
from probe.files import read_jsonl
from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.traces import Trace, Traces


@dataclass(frozen=True)
class Pairs:
    """Clean texts and corrupt ones, row by row of one length (left aligned, no padding), in groups of equal length.

    Attributes:
        clean, corrupt: token ids ``[rows, pos]``, a tensor for each length.
        right, wrong: the next token of each row in the clean and in the corrupt text, ``[rows]``.
    """

    clean: tuple[Tensor, ...]
    corrupt: tuple[Tensor, ...]
    right: tuple[Tensor, ...]
    wrong: tuple[Tensor, ...]

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.clean)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        return iter(zip(self.clean, self.corrupt, self.right, self.wrong, strict=True))

    def split(self, every: int = 2) -> tuple["Pairs", "Pairs"]:
        """Those to find a circuit on, and every n-th row, to measure it by."""
        parts: list[list[tuple[Tensor, ...]]] = [[], []]
        before = 0
        for group in self:
            held = (before + torch.arange(len(group[0]))) % every == every - 1
            before += len(group[0])
            for part, mask in zip(parts, (~held, held), strict=True):
                if mask.any():
                    part.append(tuple(tensor[mask.to(tensor.device)] for tensor in group))
        return _pairs(parts[0]), _pairs(parts[1])


def logit_difference(right: Int[Tensor, " rows"], wrong: Int[Tensor, " rows"]) -> Metric:
    """At the last token: the logit of the right next token over that of the wrong one."""

    def metric(logits: Float[Tensor, "rows pos vocab"]) -> Float[Tensor, " rows"]:
        rows = torch.arange(len(logits), device=logits.device)
        return logits[rows, -1, right] - logits[rows, -1, wrong]

    return metric


def divergence(clean: Float[Tensor, "rows pos vocab"]) -> Metric:
    """At the last token: minus the KL divergence from a clean run's distribution, in nats; zero is the clean run."""
    log_p = clean[:, -1].detach().float().log_softmax(-1)

    def metric(logits: Float[Tensor, "rows pos vocab"]) -> Float[Tensor, " rows"]:
        return -(log_p.exp() * (log_p - logits[:, -1].float().log_softmax(-1))).sum(-1)

    return metric


def shows_behaviour(problem_set: ProblemSet, behaviour: str, traces: Traces | None = None) -> Callable[[str], bool]:
    """Whether the text of a sentence is of a type that the problem set's grammar tells.

    Args:
        traces: of which a sentence has to be of the type.

    Raises:
        ProbeError: if sentences of these problems have no types, or none of the traces' is of this one.
    """
    kind = problem_set.sentence_type
    if kind is None:
        raise ProbeError(f"sentences of {problem_set.name} have no types: name a pair whose problem set has them")
    if traces is not None:
        there = {kind(trace.sentence_text(each)) or "none" for trace in traces for each in trace.sentences}
        if behaviour not in there:
            raise ProbeError(
                f"no sentence of {traces.model_name} is of the type {behaviour!r}; {nearest(behaviour, there)}"
            )
    return lambda text: kind(text) == behaviour


def behaviour_pairs(
    model: Model,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    shows: Callable[[str], bool],
    *,
    n: int = 64,
    group: int = 4,
    seed: int = 0,
) -> Pairs:
    """What a model has read before a sentence of a behaviour, and before another sentence, in traces of its own.

    A pair is two prefixes of one length, of any two traces; the texts differ otherwise, so that what is found is what
    tells the model that the behaviour is due, whatever else there is.

    Args:
        model: whose prompt comes before the traces.
        shows: whether the text of a sentence is the behaviour.
        n: how many pairs at most.
        group: how many of one length there have to be, at least.
        seed: draws them.

    Raises:
        ProbeError: if there are no two prefixes of one length that differ in this.
    """
    before: dict[int, tuple[list[tuple[list[int], int]], list[tuple[list[int], int]]]] = defaultdict(lambda: ([], []))
    for trace, problem in zip(traces, problems, strict=True):
        prompt = model.prompt_ids(problem.question)
        for sentence in trace.sentences:
            start = sentence.token_start
            if 0 < start < len(trace.tokens):
                ids = [*prompt, *trace.tokens[:start]]
                side = 0 if shows(trace.sentence_text(sentence)) else 1
                before[len(ids)][side].append((ids, trace.tokens[start]))
    generator = torch.Generator().manual_seed(seed)
    groups = []
    for yes, no in (before[length] for length in sorted(before)):
        some = min(len(yes), len(no))
        if some >= group:
            mine, theirs = (
                [side[i] for i in torch.randperm(len(side), generator=generator)[:some]] for side in (yes, no)
            )
            told = [(a, b) for a, b in zip(mine, theirs, strict=True) if a[1] != b[1]]
            if told:
                groups.append(told)
    order = torch.randperm(len(groups), generator=generator).tolist()
    made, size = [], 0
    for at in order:
        some = groups[at][: n - size]
        if some:
            made.append(_group(model, [a for a, _ in some], [b for _, b in some]))
            size += len(some)
    if not made:
        raise ProbeError(
            "no two prefixes of one length differ in what comes next: give more traces, or another behaviour"
        )
    return _pairs(made)


def read_pairs(model: Model, path: str | Path) -> Pairs:
    """Pairs of one's own: JSONL with ``clean``, ``corrupt``, ``right`` and ``wrong``, the last two the next tokens.

    Raises:
        ProbeError: naming the line of which a text has another number of tokens than its partner, or that lacks one.
    """
    by_length: dict[int, list[tuple[list[int], list[int], int, int]]] = defaultdict(list)
    for where, row in read_jsonl(path):
        missing = [key for key in ("clean", "corrupt", "right", "wrong") if not isinstance(row.get(key), str)]
        if missing:
            raise ProbeError(f"{where} has no text {missing[0]!r}")
        clean, corrupt = (list(model.tokenizer(row[key]).input_ids) for key in ("clean", "corrupt"))
        nexts = [model.tokenizer(row[key], add_special_tokens=False).input_ids[:1] for key in ("right", "wrong")]
        if len(clean) != len(corrupt):
            raise ProbeError(f"{where}: clean has {len(clean)} tokens and corrupt {len(corrupt)}; make them alike")
        if not all(nexts) or nexts[0] == nexts[1]:
            raise ProbeError(f"{where}: right and wrong begin with the same token, or with none")
        if clean == corrupt:
            raise ProbeError(f"{where}: clean and corrupt are the same text")
        by_length[len(clean)].append((clean, corrupt, nexts[0][0], nexts[1][0]))
    if not by_length:
        raise ProbeError(f"{path} has no pairs: give one on every line")
    return grouped(model, by_length)


def grouped(model: Model, by_length: Mapping[int, Sequence[tuple[list[int], list[int], int, int]]]) -> Pairs:
    """Pairs from rows of clean ids, corrupt ids, right and wrong next token, by their length."""
    return _pairs(
        [
            _group(model, [(a, right) for a, _, right, _ in rows], [(b, wrong) for _, b, _, wrong in rows])
            for rows in by_length.values()
        ]
    )


def _group(
    model: Model, clean: list[tuple[list[int], int]], corrupt: list[tuple[list[int], int]]
) -> tuple[Tensor, ...]:
    sides = [torch.tensor([ids for ids, _ in side], device=model.device) for side in (clean, corrupt)]
    nexts = [torch.tensor([after for _, after in side], device=model.device) for side in (clean, corrupt)]
    return sides[0], sides[1], nexts[0], nexts[1]


def _pairs(groups: Sequence[tuple[Tensor, ...]]) -> Pairs:
    columns = list(zip(*groups, strict=True)) or [(), (), (), ()]
    return Pairs(*(tuple(column) for column in columns))

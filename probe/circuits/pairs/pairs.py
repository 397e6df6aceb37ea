"""Pairs of clean and corrupt texts of equal length, and the metrics that compare their next tokens."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.circuits.edges.lens import Metric
from probe.errors import NotApplicable, ProbeError
from probe.files import read_jsonl
from probe.hooks import row_bytes
from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.taxonomy import Behaviour, find_behaviour
from probe.traces import Trace, encode_after

Side = tuple[list[int], int]
"""The token ids of a text, and its next token."""
Row = tuple[list[int], list[int], int, int]
"""Token ids of a clean and of a corrupt text of equal length, and the next token of each."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of a clean and a corrupt text of equal length, grouped by length, without padding.

    Attributes:
        clean: token ids of the clean texts, one tensor ``[rows, pos]`` for each length.
        corrupt: token ids of the corrupt texts, in the same shape.
        right: the next token of each clean text, one tensor ``[rows]`` for each length.
        wrong: the next token of each corrupt text.
    """

    clean: tuple[Tensor, ...]
    corrupt: tuple[Tensor, ...]
    right: tuple[Tensor, ...]
    wrong: tuple[Tensor, ...]

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.clean)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        return iter(zip(self.clean, self.corrupt, self.right, self.wrong, strict=True))

    def __repr__(self) -> str:
        return f"Pairs({len(self)} pairs in {len(self.clean)} lengths)"

    def parts(self, rows: Callable[[int], int]) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """The groups, in parts of a limited number of rows, in the order of the pairs.

        Args:
            rows: gives the largest number of rows for a number of tokens, such as ``EdgeLens.rows_that_fit``.
        """
        found = []
        for clean, corrupt, right, wrong in self:
            several = rows(clean.shape[1])
            cut = (each.split(several) for each in (clean, corrupt, right, wrong))
            found += zip(*cut, strict=True)
        return found

    def on(self, device: torch.device) -> "Pairs":
        """The same pairs on another device, such as that of the model that reads them."""
        groups = (self.clean, self.corrupt, self.right, self.wrong)
        return Pairs(*(tuple(tensor.to(device) for tensor in group) for group in groups))

    def split(self, every: int = 2) -> tuple["Pairs", "Pairs"]:
        """Divide the pairs into those to find a circuit on and those to measure it on.

        Args:
            every: every ``every``-th pair goes to the second part.
        """
        parts: list[list[tuple[Tensor, ...]]] = [[], []]
        before = 0
        for group in self:
            second = (before + torch.arange(len(group[0]))) % every == every - 1
            before += len(group[0])
            for part, mask in zip(parts, (~second, second), strict=True):
                if mask.any():
                    part.append(tuple(tensor[mask.to(tensor.device)] for tensor in group))
        return _pairs(parts[0]), _pairs(parts[1])


def rows_that_fit(model: Model, sites: int = 1) -> Callable[[int], int]:
    """Make the function for :meth:`Pairs.parts` that gives the number of texts a pass without gradients may read.

    Args:
        model: the model, whose budget the texts must fit into.
        sites: the number of sites that are read.
    """
    return lambda width: max(1, model.budget // row_bytes(model, width, sites))


def logit_difference(right: Int[Tensor, " rows"], wrong: Int[Tensor, " rows"]) -> Metric:
    """The metric that takes the logit of the right next token minus that of the wrong one, at the last token.

    Args:
        right: the right next token of each row.
        wrong: the wrong next token of each row.
    """

    def metric(logits: Float[Tensor, "rows pos vocab"]) -> Float[Tensor, " rows"]:
        rows = torch.arange(len(logits), device=logits.device)
        return logits[rows, -1, right].float() - logits[rows, -1, wrong].float()

    return metric


def divergence(clean: Float[Tensor, "rows pos vocab"]) -> Metric:
    """The metric that takes minus the KL divergence from a clean run in nats, at the last token; 0 is the clean run.

    Args:
        clean: logits of the clean run.
    """
    log_p = clean[:, -1].detach().float().log_softmax(-1)

    def metric(logits: Float[Tensor, "rows pos vocab"]) -> Float[Tensor, " rows"]:
        return -(log_p.exp() * (log_p - logits[:, -1].float().log_softmax(-1))).sum(-1)

    return metric


def behaviour_pairs(
    model: Model,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    behaviour: Behaviour | str,
    *,
    problem_set: ProblemSet | None = None,
    n_pairs: int = 64,
    min_group: int = 4,
    seed: int = 0,
) -> Pairs:
    """Make pairs of prefixes of traces: the clean one is followed by a sentence of a behaviour, the corrupt one is not.

    Both prefixes of a pair have the same number of tokens, but come from any two traces. Their texts differ in other
    ways too, so what is common to all pairs is what makes the model begin the behaviour.

    Args:
        model: reads the prefixes, with its own prompt before them.
        traces: the model's own traces.
        problems: the problem of each trace.
        behaviour: the behaviour, or its name as :func:`~probe.find_behaviour` reads it.
        problem_set: the problem set whose sentence types a name may mean.
        n_pairs: the largest number of pairs.
        min_group: lengths with fewer prefixes than this of either kind are left out.
        seed: seeds the choice of pairs.

    Raises:
        ProbeError: if nothing has that name.
        NotApplicable: if no two prefixes of equal length differ in the behaviour and in the next token.
    """
    wanted = find_behaviour(behaviour, problem_set=problem_set) if isinstance(behaviour, str) else behaviour
    prompts = [model.prompt_ids(problem.question) for problem in problems]
    # Where each prefix ends, as the index of its trace and a token: the ids of all prefixes would fill the memory.
    ends: dict[int, tuple[list[tuple[int, int]], list[tuple[int, int]]]] = defaultdict(lambda: ([], []))
    for i, (trace, prompt, shown) in enumerate(zip(traces, prompts, wanted.marks(traces), strict=True)):
        for sentence, shows in zip(trace.sentences, shown, strict=True):
            start = sentence.token_start
            if 0 < start < len(trace.tokens):
                ends[len(prompt) + start][0 if shows else 1].append((i, start))

    def prefix(end: tuple[int, int]) -> Side:
        i, start = end
        return [*prompts[i], *traces[i].tokens[:start]], traces[i].tokens[start]

    generator = torch.Generator().manual_seed(seed)
    groups: list[list[tuple[tuple[int, int], tuple[int, int]]]] = []
    for sides in (ends[length] for length in sorted(ends)):
        size = min(map(len, sides))
        if size >= min_group:
            mine, theirs = ([side[i] for i in torch.randperm(len(side), generator=generator)[:size]] for side in sides)
            differ = [(a, b) for a, b in zip(mine, theirs, strict=True) if prefix(a)[1] != prefix(b)[1]]
            if differ:
                groups.append(differ)
    order = torch.randperm(len(groups), generator=generator).tolist()
    made, size = [], 0
    for at in order:
        some = groups[at][: n_pairs - size]
        if some:
            made.append(_group(model, [prefix(a) for a, _ in some], [prefix(b) for _, b in some]))
            size += len(some)
    if not made:
        raise NotApplicable(
            f"no two prefixes of equal length differ in {wanted.name!r} and in the next token: "
            "give more traces, or another behaviour"
        )
    return _pairs(made)


def read_pairs(model: Model, path: str | Path) -> Pairs:
    """Read pairs from a JSONL file of objects with the texts ``clean``, ``corrupt``, ``right`` and ``wrong``.

    Args:
        model: its tokenizer reads the texts.
        path: the file. The first tokens of ``right`` and ``wrong`` are the next tokens.

    Raises:
        ProbeError: if a line lacks a text, its clean and corrupt texts are equal or differ in their number of tokens,
            or its next tokens are equal.
    """
    by_length: dict[int, list[Row]] = defaultdict(list)
    for where, row in read_jsonl(path):
        missing = [key for key in ("clean", "corrupt", "right", "wrong") if not isinstance(row.get(key), str)]
        if missing:
            raise ProbeError(f"{where} has no text {missing[0]!r}")
        clean, corrupt = (model.encode(row[key]) for key in ("clean", "corrupt"))
        nexts = [encode_after(clean, row[key], model.decode, model.tokenizer)[:1] for key in ("right", "wrong")]
        if len(clean) != len(corrupt):
            raise ProbeError(
                f"{where}: clean has {len(clean)} tokens and corrupt {len(corrupt)}; make them equally long"
            )
        if not all(nexts) or nexts[0] == nexts[1]:
            raise ProbeError(f"{where}: right and wrong begin with the same token, or are empty; make them differ")
        if clean == corrupt:
            raise ProbeError(f"{where}: clean and corrupt are the same text; make them differ")
        by_length[len(clean)].append((clean, corrupt, nexts[0][0], nexts[1][0]))
    if not by_length:
        raise ProbeError(f"{path} has no pairs: write one JSON object on each line")
    return grouped(model, by_length)


def grouped(model: Model, by_length: Mapping[int, Sequence[Row]]) -> Pairs:
    """Make pairs from rows of token ids.

    Args:
        model: gives the device.
        by_length: for each number of tokens, the clean ids, corrupt ids, right and wrong next token of each pair.
    """
    return _pairs(
        [
            _group(model, [(a, right) for a, _, right, _ in rows], [(b, wrong) for _, b, _, wrong in rows])
            for rows in by_length.values()
        ]
    )


def _group(model: Model, clean: list[Side], corrupt: list[Side]) -> tuple[Tensor, ...]:
    for side in (clean, corrupt):
        model.check_ids([*(ids for ids, _ in side), *([after] for _, after in side)])
    sides = [torch.tensor([ids for ids, _ in side], device=model.device) for side in (clean, corrupt)]
    nexts = [torch.tensor([after for _, after in side], device=model.device) for side in (clean, corrupt)]
    return sides[0], sides[1], nexts[0], nexts[1]


def _pairs(groups: Sequence[tuple[Tensor, ...]]) -> Pairs:
    columns = list(zip(*groups, strict=True)) or [(), (), (), ()]
    return Pairs(*(tuple(column) for column in columns))

"""Texts packed into rows: several to a row, none of which sees another."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.hooks import additive_masks
from probe.models import Model
from probe.problems import Problem
from probe.traces import Trace


@dataclass(frozen=True)
class Example:
    """One text to train on.

    Attributes:
        ids: all of its tokens.
        start: from which on they count; those before are a prompt.
    """

    ids: tuple[int, ...]
    start: int = 1

    @property
    def counted(self) -> int:
        """How many of its tokens count; nothing predicts the first of a text."""
        return len(self.ids) - max(self.start, 1)


@dataclass(frozen=True)
class Packed:
    """Rows of examples.

    Attributes:
        ids: ``[rows, pos]``.
        segment: which example each token belongs to; −1 at padding.
        positions: of each token in its example.
        counts: where the next token belongs to the same example and counts, ``[rows, pos]``.
    """

    ids: Int[Tensor, "rows pos"]
    segment: Int[Tensor, "rows pos"]
    positions: Int[Tensor, "rows pos"]
    counts: Bool[Tensor, "rows pos"]

    @property
    def targets(self) -> Int[Tensor, " counted"]:
        """The token after each place that counts."""
        return self.ids.roll(-1, 1)[self.counts]

    def logits(self, model: Model) -> Float[Tensor, "counted vocab"]:
        """What a model predicts at each place that counts, in float32."""
        out = model.hf(
            input_ids=self.ids, attention_mask=self._masks(model), position_ids=self.positions, use_cache=False
        )
        return out.logits[self.counts].float()

    def _masks(self, model: Model) -> Tensor | dict[str, Tensor]:
        column = torch.arange(self.ids.shape[1], device=self.ids.device)
        back = column[:, None] - column
        # A padded query sees its like, so that no row of the softmax is empty.
        seen = (self.segment[:, :, None] == self.segment[:, None, :]) & (back >= 0)
        return additive_masks(model, seen, back.expand_as(seen))


def pack(model: Model, examples: Sequence[Example], length: int) -> Packed:
    """Put examples into rows of up to ``length`` tokens, each where it first fits; a longer one has a row of its own.

    Args:
        model: its padding token and device are taken.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(examples)), key=lambda i: -len(examples[i].ids)):
        size = len(examples[i].ids)
        at = next((row for row, left in enumerate(room) if size <= left), len(rows))
        if at == len(rows):
            rows.append([])
            room.append(max(length, size))
        rows[at].append(i)
        room[at] -= size
    width = max(sum(len(examples[i].ids) for i in row) for row in rows)
    ids = torch.full((len(rows), width), model.pad_id)
    segment, positions = torch.full_like(ids, -1), torch.zeros_like(ids)
    counts = torch.zeros(ids.shape, dtype=torch.bool)
    for row, members in enumerate(rows):
        column = 0
        for i in members:
            size = len(examples[i].ids)
            ids[row, column : column + size] = torch.tensor(examples[i].ids)
            segment[row, column : column + size] = i
            positions[row, column : column + size] = torch.arange(size)
            counts[row, column + max(examples[i].start, 1) - 1 : column + size - 1] = True
            column += size
    return Packed(*(tensor.to(model.device) for tensor in (ids, segment, positions, counts)))


def examples_of(model: Model, traces: Sequence[Trace], problems: Sequence[Problem]) -> list[Example]:
    """Traces behind the model's own prompt, which does not count; those that ended have the end token.

    Args:
        problems: the problem of each trace, in the same order.
    """
    found = []
    for trace, problem in zip(traces, problems, strict=True):
        prompt = model.prompt_ids(problem.question)
        end = [] if trace.truncated else [model.eos_ids[0]]
        found.append(Example((*prompt, *trace.tokens, *end), len(prompt)))
    return found

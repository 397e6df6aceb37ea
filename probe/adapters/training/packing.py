"""Several texts packed into one row, each of which attends to itself alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.hooks import Masks, additive_masks, causal_masks, states_of
from probe.models import Model
from probe.problems import Problem
from probe.traces import Trace


@dataclass(frozen=True)
class Example:
    """One text to train on.

    Attributes:
        ids: all of its token ids.
        start: index of the first token that counts; the tokens before it are a prompt.
    """

    ids: tuple[int, ...]
    start: int = 1

    @property
    def counted(self) -> int:
        """The number of tokens that count; the first token of a text never does, since nothing predicts it."""
        return len(self.ids) - max(self.start, 1)


@dataclass(frozen=True, repr=False)
class Packed:
    """Rows of examples.

    Attributes:
        ids: token ids.
        segment: number of the example that each token belongs to; −1 at padding.
        positions: index of each token in its example.
        counts: True where the next token belongs to the same example and counts.
    """

    ids: Int[Tensor, "rows pos"]
    segment: Int[Tensor, "rows pos"]
    positions: Int[Tensor, "rows pos"]
    counts: Bool[Tensor, "rows pos"]

    def __repr__(self) -> str:
        return f"Packed({self.ids.shape[0]} rows of {self.ids.shape[1]} tokens, {int(self.counts.sum())} counted)"

    @property
    def targets(self) -> Int[Tensor, " counted"]:
        """The token after each counted place."""
        return self.ids.roll(-1, 1)[self.counts]

    def run(self, model: Model) -> Any:
        """Run a model on the rows, and return its output; in a block of ``capture`` it ends at the deepest site."""
        return model.hf(**self._inputs(model))

    def states(self, model: Model) -> Float[Tensor, "rows pos d_model"]:
        """The states that the head of a model reads, at every place."""
        return states_of(model, **self._inputs(model))

    def logits(self, model: Model) -> Float[Tensor, "counted vocab"]:
        """A model's logits at each counted place, in float32."""
        return self.run(model).logits[self.counts].float()

    def _inputs(self, model: Model) -> dict[str, Any]:
        masks = self._masks(model)
        return {"input_ids": self.ids, "attention_mask": masks, "position_ids": self.positions, "use_cache": False}

    def _masks(self, model: Model) -> Masks:
        if model.state_layers:  # one text in a row
            return causal_masks(model, self.segment >= 0, self.ids.shape[1])
        column = torch.arange(self.ids.shape[1], device=self.ids.device)
        back = column[:, None] - column
        # Padding attends to padding, so that no row of the softmax is empty.
        seen = (self.segment[:, :, None] == self.segment[:, None, :]) & (back >= 0)
        return additive_masks(model, seen, self.positions, self.positions)


def in_parts(examples: Sequence[Example], tokens: int) -> list[list[Example]]:
    """Split texts, in order, into parts of at least ``tokens`` tokens; the last part may have fewer."""
    parts: list[list[Example]] = [[]]
    size = 0
    for example in examples:
        if size >= tokens:
            parts.append([])
            size = 0
        parts[-1].append(example)
        size += len(example.ids)
    return parts


def pack(model: Model, examples: Sequence[Example], length: int) -> Packed:
    """Pack examples into rows of at most ``length`` tokens.

    Args:
        model: gives the padding token and the device.
        examples: the texts; the longest is placed first, each in the first row that has room.
        length: tokens in a row; a longer example gets a row to itself.
    """
    return pack_rows(model, examples, in_rows(examples, row_length(model, length)))


def row_length(model: Model, length: int) -> int:
    """The length of the rows into which texts can be packed: linear attention reads through a row from its start."""
    return 1 if model.state_layers else length


def in_rows(examples: Sequence[Example], length: int) -> list[list[int]]:
    """The indices of the examples that share each row, as :func:`pack` places them."""
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
    return rows


def pack_rows(model: Model, examples: Sequence[Example], rows: Sequence[Sequence[int]]) -> Packed:
    """Pack the examples of some rows, padded to the longest.

    Args:
        model: gives the padding token and the device.
        examples: the texts.
        rows: the indices of the examples of each row.
    """
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
    """Turn traces into training texts, each after the model's own prompt, which does not count.

    Args:
        model: gives the prompt and the end token, which is appended to every trace that is not truncated.
        traces: rollouts.
        problems: the problem of each trace, in the same order.

    Raises:
        ProbeError: if the model cannot read an id, or so many tokens.
    """
    found = []
    for trace, problem in zip(traces, problems, strict=True):
        prompt = model.prompt_ids(problem.question)
        end = [] if trace.truncated else model.eos_ids[:1]
        found.append(Example((*prompt, *trace.tokens, *end), len(prompt)))
    model.check_ids(example.ids for example in found)
    return found

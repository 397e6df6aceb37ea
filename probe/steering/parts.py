"""Parts of a batch of gates that fit into a budget: some rows, and some of their gates."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from probe.errors import ProbeError
from probe.hooks import Forced, TrainingCost
from probe.models import Model, Sizes, fitting
from probe.steering.gates import GateBatch

_SHARE = 0.35
"""The share of a budget that unshifted texts may take, and that the shifted copies of their gates may take."""


@dataclass(frozen=True)
class GateCost:
    """The bytes that gates take in training.

    Attributes:
        passes: those of a pass above the steering layer.
        text: for a token of an unshifted text, of which the keys and values are held: once as they were computed, once
            beside those of the shifted copies, and once for every query head.
        alone: whether each gate needs the whole text before it, run for it alone.
    """

    passes: TrainingCost
    text: int
    alone: bool = False

    @classmethod
    def of(cls, base: Model, layer: int) -> "GateCost":
        """Compute the bytes for a base model that is steered at a layer."""
        sizes = Sizes.of(base.hf.config)
        values = 2 * sizes.cached + (2 * sizes.d_head * sizes.heads if sizes.kv_heads < sizes.heads else 0)
        text = base.dtype.itemsize * (base.n_layers - layer - 1) * values
        return cls(TrainingCost.of(base, above=layer), text, alone=bool(base.state_layers))

    def whole(self, batch: GateBatch, *, together: bool) -> int:
        """The least budget in which a batch is scored in one part."""
        rows, tokens = batch.forced.ids.shape
        slots = int(batch.gate.sum(1).max())
        logits = self.passes.whole(0, 0, rows * slots)
        if together:
            return max(self.passes.whole(rows, tokens), logits)
        return max(int(rows * max(self._text(tokens), self._copies(slots, tokens)) / _SHARE) + 10, logits)

    def parts(self, batch: GateBatch, budget: int, *, together: bool) -> Iterator[tuple[list[int], int, bool]]:
        """Divide the rows of a batch into groups that fit.

        Args:
            batch: the texts and their gates.
            budget: bytes.
            together: whether all gates of a text are steered in one pass.

        Yields:
            Consecutive rows; how many gates of each row fit at once; and whether blocks are checkpointed.
        """
        rows, tokens = range(len(batch.gate)), batch.forced.valid.sum(1).tolist()
        slots = batch.gate.sum(1).tolist()
        if together:
            for group, light in self.passes.micro_batches(rows, tokens.__getitem__, budget):
                yield group, max(slots), light
            return
        room = int(_SHARE * budget)
        for group in fitting(rows, lambda row: self._text(tokens[row]), room):
            longest, most = max(tokens[row] for row in group), max(1, *(slots[row] for row in group))
            while most > 1 and len(group) * self._copies(most, longest) > room:
                most = (most + 1) // 2
            light = self.alone and self.passes.light is not None and self.passes.row(longest) > room
            yield group, most, light

    def _text(self, tokens: int) -> int:
        """Bytes of an unshifted text, which is run without gradients."""
        if self.alone:
            return self.passes.row(tokens)
        return tokens * (self.text + tokens * self.passes.light_pair)

    def _copies(self, gates: int, tokens: int) -> int:
        """Bytes of the shifted copies of so many gates of a text."""
        if self.alone:
            return gates * self.passes.row(tokens)
        return gates * (self.passes.token + (tokens + 2 * gates) * self.passes.pair)


def rows_of(batch: GateBatch, rows: slice) -> GateBatch:
    """Some consecutive rows of a batch, without the columns in which all of them are padding."""
    forced = batch.forced
    width, emitted = int(forced.valid[rows].sum(1).max()), int(forced.emitted[rows].sum(1).max())
    text, tokens = (rows, slice(width)), (rows, slice(emitted))
    return GateBatch(
        Forced(forced.ids[text], forced.valid[text], forced.predicts[tokens], forced.emitted[tokens]),
        batch.gate[tokens],
        batch.behaviour[tokens],
        batch.target[tokens],
        None if batch.group is None else batch.group[tokens],
    )


def chunks_of(batch: GateBatch, size: int) -> Iterator[GateBatch]:
    """Divide the gates of each row into chunks of about ``size``; a group of gates is never divided."""
    gates = int(batch.gate.sum(1).max())
    if gates <= size:
        yield batch
        return
    rows, slots = batch.places[0], batch.slots
    if batch.group is not None:
        # Every gate of a group goes where the first one goes.
        _, group = torch.stack([rows, batch.group[batch.gate]]).unique(dim=1, return_inverse=True)
        first = slots.new_full((int(group.max()) + 1,), gates).scatter_reduce(0, group, slots, "amin")
        slots = first[group]
    for start in range(0, gates, size):
        gate = batch.gate.clone()
        gate[batch.gate] = (slots >= start) & (slots < start + size)
        yield replace(batch, gate=gate)


def check_targets(base: Model, batch: GateBatch) -> None:
    """Refuse a gate whose target is no token of the base model.

    Raises:
        ProbeError: naming the token.
    """
    target = batch.target[batch.gate]
    if len(target) and not 0 <= int(target.min()) <= int(target.max()) < base.n_embeddings:
        raise ProbeError(
            f"a gate's target is token {int(target.max())}, and {base.name} has {base.n_embeddings} tokens; leave that "
            "gate out"
        )

"""The training loss of mechanisms: cross-entropy at the gates, with the same steering as in decoding."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache

from probe.hooks import Head, UpperLayers, additive_masks, causal_masks, score_logits
from probe.models import Model
from probe.steering.gates import GateBatch
from probe.steering.mechanism import Mechanism
from probe.steering.parts import GateCost, chunks_of, rows_of


@dataclass(frozen=True)
class Scored:
    """The gates of a batch, scored under a mechanism.

    Attributes:
        losses: cross-entropy at each gate, in nats.
        right: whether the most likely token at each gate is its target.
    """

    losses: Float[Tensor, " gates"]
    right: Bool[Tensor, " gates"]


class GateLoss:
    """Scores batches under a mechanism.

    Only the layers above the steering layer are run, and logits are computed at the gates only.

    Args:
        mechanism: the mechanism. Its ``persistent`` decides what later tokens see, unless the batch has ``group``.
        keep: bytes of keys and values of unshifted texts that may be kept between calls. They do not depend on the
            mechanism and take most of the time of a step.
    """

    def __init__(self, base: Model, mechanism: Mechanism, *, keep: int = 0) -> None:
        self.base, self.mechanism = base, mechanism
        self.upper, self.head = UpperLayers(base, mechanism.layer), Head(base)
        self.cost = GateCost.of(base, mechanism.layer)
        self._room, self._texts = keep, dict[tuple[int, int, int], tuple[GateBatch, _TextCache]]()

    def __call__(self, batch: GateBatch, hidden: Float[Tensor, "rows pos d_model"]) -> Scored:
        """Score a batch in one part.

        Args:
            batch: the texts and their gates; every target is a token of the base model (:func:`check_targets`).
            hidden: the unshifted residual stream at the steering layer, one row for each text.
        """
        for _, scored in self.parts(batch, hidden, sys.maxsize):
            return scored
        nothing = hidden.new_zeros(0, dtype=torch.float32)
        return Scored(nothing, nothing.bool())

    def parts(
        self, batch: GateBatch, hidden: Float[Tensor, "rows pos d_model"], budget: int
    ) -> Iterator[tuple[Int[Tensor, " some"], Scored]]:
        """Score a batch in parts that fit into a budget: some rows, and of their gates as many as fit.

        Args:
            batch, hidden: as above.
            budget: bytes that a part and its backward pass may take. Run the backward pass before the next part.

        Yields:
            The numbers of some gates of the batch, and their scores.
        """
        if not bool(batch.gate.any()):
            return
        numbers = (batch.gate.flatten().cumsum(0) - 1).view_as(batch.gate)
        together = batch.group is None and self.mechanism.persistent
        for rows, some, light in self.cost.parts(batch, budget, together=together):
            part, below, number = batch, hidden, numbers
            if len(rows) < len(batch.gate):
                at = slice(rows[0], rows[-1] + 1)
                part = rows_of(batch, at)
                below = hidden[at, : part.forced.ids.shape[1]]
                number = numbers[at, : part.gate.shape[1]]
            cache = (
                None if together or self.cost.alone else self._text((id(batch), rows[0], rows[-1]), batch, part, below)
            )
            for chosen in chunks_of(part, some):
                if bool(chosen.gate.any()):
                    scored = self._score(chosen, below, cache, self.cost.passes.chunk(budget), light=light)
                    yield number[chosen.gate], scored

    def whole(self, batch: GateBatch) -> int:
        """The least budget in which a batch is scored in one part."""
        return self.cost.whole(batch, together=batch.group is None and self.mechanism.persistent)

    def forget(self) -> None:
        """Give back the keys and values that were kept, and keep none from now on."""
        self._texts.clear()
        self._room = 0

    def _score(
        self,
        batch: GateBatch,
        hidden: Float[Tensor, "rows pos d_model"],
        cache: "_TextCache | None",
        chunk: int,
        *,
        light: bool,
    ) -> Scored:
        mechanism, target = self.mechanism, batch.target[batch.gate]
        resid, behaviour = hidden[batch.places], batch.behaviours(mechanism.n_behaviours)
        shift = mechanism.shift(resid, mechanism.strength(resid, behaviour), behaviour).to(resid.dtype)
        if cache is not None:
            states = self._in_groups(batch, hidden, shift, cache)
        elif batch.group is None and mechanism.persistent:
            states = self._together(batch, hidden, shift, light=light)
        else:
            states = self._alone(batch, hidden, shift, light=light)
        places = batch.places[0], batch.slots
        losses, right = score_logits(_both, [(self.head, states)], places, target, size=chunk).unbind(1)
        return Scored(losses.contiguous(), right.bool())

    def _together(
        self,
        batch: GateBatch,
        hidden: Float[Tensor, "rows pos d_model"],
        shift: Float[Tensor, "gates d_model"],
        *,
        light: bool,
    ) -> Float[Tensor, "rows slots d_model"]:
        """Run all shifts of a text in one pass, in which later tokens see them."""
        rows, at = batch.places
        columns = _in_slots(batch, at, 0)
        states = self.upper.states(
            hidden.index_put((rows, at), shift, accumulate=True),
            attention_mask=causal_masks(self.base, batch.forced.valid, hidden.shape[1]),
            position_ids=batch.forced.positions,
            light=light,
        )
        return states.gather(1, columns[:, :, None].expand(-1, -1, states.shape[-1]))

    def _alone(
        self,
        batch: GateBatch,
        hidden: Float[Tensor, "rows pos d_model"],
        shift: Float[Tensor, "gates d_model"],
        *,
        light: bool,
    ) -> Float[Tensor, "rows slots d_model"]:
        """Run the whole text before it for each group of gates, because linear attention keeps no state within a text.

        This takes as many passes over a text as it has groups.
        """
        rows, at = batch.places
        label = at if batch.group is None else batch.group[batch.gate]
        pairs, own = torch.stack([rows, label]).unique(dim=1, return_inverse=True)
        texts, width = pairs[0], int(at.max()) + 1
        states = self.upper.states(
            hidden[texts, :width].index_put((own, at), shift, accumulate=True),
            attention_mask=causal_masks(self.base, batch.forced.valid[texts, :width], width),
            position_ids=batch.forced.positions[texts, :width],
            light=light,
        )
        slots = hidden.new_zeros(len(hidden), int(batch.slots.max()) + 1, hidden.shape[-1])
        return slots.index_put((rows, batch.slots), states[own, at])

    def _in_groups(
        self,
        batch: GateBatch,
        hidden: Float[Tensor, "rows pos d_model"],
        shift: Float[Tensor, "gates d_model"],
        cache: "_TextCache",
    ) -> Float[Tensor, "rows slots d_model"]:
        """Run each group of gates separately, as shifted copies of its positions that are appended to the text.

        A copy attends to the unshifted text before its group, to the earlier copies of its group and to itself. For a
        group of one this equals rerunning one cached step. The text does not depend on the shifts, so it runs without
        gradients and only its keys and values are kept.
        """
        forced, (rows, at), width = batch.forced, batch.places, hidden.shape[1]

        column = _in_slots(batch, at, width)  # a slot without a gate attends to the whole text and is never read
        label = _in_slots(batch, at if batch.group is None else batch.group[batch.gate], -1)
        together = (label[:, :, None] == label[:, None, :]) & (column[:, None, :] <= column[:, :, None])
        begins = torch.where(together, column[:, None, :], width).amin(-1)
        before = torch.arange(width, device=hidden.device) < begins[:, :, None]
        positions = _in_slots(batch, forced.positions[rows, at], 0)
        seen = torch.cat([forced.valid[:, None] & before, together], -1)
        copies = hidden.new_zeros(*column.shape, hidden.shape[-1])
        copies = copies.index_put((rows, batch.slots), hidden[rows, at] + shift)
        masks = additive_masks(self.base, seen, positions, torch.cat([forced.positions, positions], 1))
        return self.upper.states(copies, attention_mask=masks, position_ids=positions, cache=cache)

    @torch.no_grad()
    def _text(self, key: tuple[int, int, int], whole: GateBatch, batch: GateBatch, hidden: Tensor) -> "_TextCache":
        """The keys and values of the unshifted texts of some rows of a batch, which are kept while there is room."""
        if key in self._texts:
            return self._texts[key][1]
        cache, width = _TextCache(), hidden.shape[1]
        masks = causal_masks(self.base, batch.forced.valid, width)
        self.upper.states(hidden, attention_mask=masks, position_ids=batch.forced.positions, cache=cache)
        cache.written = width
        if cache.size <= self._room:
            self._room -= cache.size
            self._texts[key] = whole, cache  # the batch is held, so that no other gets its id
        return cache


class _TextCache(Cache):
    """The keys and values of a text. Once they are written, later passes read them and add nothing."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.written = 0
        """The number of columns of the text; 0 while it is being written."""
        self.states: dict[int, tuple[Tensor, Tensor]] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        if not self.written:
            # Where one projection gives queries, keys and values, a view would keep all of it.
            key_states, value_states = (
                each if each.untyped_storage().nbytes() == each.nbytes else each.contiguous().clone()
                for each in (key_states, value_states)
            )
            self.states[layer_idx] = key_states, value_states
            return key_states, value_states
        keys, values = self.states[layer_idx]
        return torch.cat([keys, key_states], 2), torch.cat([values, value_states], 2)

    @property
    def size(self) -> int:
        """Bytes of all keys and values."""
        return sum(tensor.nbytes for pair in self.states.values() for tensor in pair)

    def get_seq_length(self, layer_idx: int | None = None) -> int:
        return self.written if layer_idx is None else 0  # see RowCache


def _in_slots(batch: GateBatch, values: Int[Tensor, " gates"], empty: int) -> Int[Tensor, "rows slots"]:
    """Arrange one value for each gate in one row for each text."""
    slots = batch.slots
    out = values.new_full((len(batch.gate), int(slots.max()) + 1), empty)
    return out.index_put((batch.places[0], slots), values)


def _both(logits: Float[Tensor, "gates vocab"], target: Int[Tensor, " gates"]) -> Float[Tensor, "gates two"]:
    """The loss at each gate, and 1 where the most likely token is the target."""
    losses = F.cross_entropy(logits, target, reduction="none")
    return torch.stack([losses, (logits.argmax(-1) == target).to(losses)], 1)

"""The training loss of mechanisms: cross-entropy at the gates, with the same steering as in decoding."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache

from probe.errors import ProbeError
from probe.hooks import UpperLayers, additive_masks, causal_masks
from probe.models import Model
from probe.steering.gates import GateBatch
from probe.steering.mechanism import Mechanism


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
        self.upper = UpperLayers(base, mechanism.layer)
        self._room, self._texts = keep, dict[int, tuple[GateBatch, _TextCache]]()

    def __call__(self, batch: GateBatch, hidden: Float[Tensor, "rows pos d_model"]) -> Scored:
        """Score a batch.

        Args:
            batch: the texts and their gates.
            hidden: the unshifted residual stream at the steering layer, one row for each text.

        Raises:
            ProbeError: if a target is no token of the base model.
        """
        mechanism, target = self.mechanism, batch.target[batch.gate]
        if not len(target):
            nothing = hidden.new_zeros(0, dtype=torch.float32)
            return Scored(nothing, nothing.bool())
        if not 0 <= int(target.min()) <= int(target.max()) < self.base.n_embeddings:
            raise ProbeError(
                f"a gate's target is token {int(target.max())}, and {self.base.name} has "
                f"{self.base.n_embeddings} tokens; leave that gate out"
            )
        resid, behaviour = hidden[batch.places], batch.behaviours(mechanism.n_behaviours)
        shift = mechanism.shift(resid, mechanism.strength(resid, behaviour), behaviour).to(resid.dtype)
        run = self._together if batch.group is None and mechanism.persistent else self._in_groups
        logits = run(batch, hidden, shift)[batch.places[0], batch.slots].float()
        return Scored(F.cross_entropy(logits, target, reduction="none"), logits.argmax(-1) == target)

    def _together(
        self, batch: GateBatch, hidden: Float[Tensor, "rows pos d_model"], shift: Float[Tensor, "gates d_model"]
    ) -> Float[Tensor, "rows slots vocab"]:
        """Run all shifts of a text in one pass, in which later tokens see them."""
        rows, at = batch.places
        columns = _in_slots(batch, at, 0)
        with _read_only(self.base, columns):
            return self.upper(
                hidden.index_put((rows, at), shift, accumulate=True),
                attention_mask=causal_masks(self.base, batch.forced.valid, hidden.shape[1]),
                position_ids=batch.forced.positions,
            )

    def _in_groups(
        self, batch: GateBatch, hidden: Float[Tensor, "rows pos d_model"], shift: Float[Tensor, "gates d_model"]
    ) -> Float[Tensor, "rows slots vocab"]:
        """Run each group of gates separately, as shifted copies of its positions that are appended to the text.

        A copy attends to the unshifted text before its group, to the earlier copies of its group and to itself. For a
        group of one this equals rerunning one cached step. The text does not depend on the shifts, so it runs without
        gradients and only its keys and values are kept.
        """
        forced, (rows, at), width = batch.forced, batch.places, hidden.shape[1]
        cache = self._text(batch, hidden)

        column = _in_slots(batch, at, width)  # a slot without a gate attends to the whole text and is never read
        label = _in_slots(batch, at if batch.group is None else batch.group[batch.gate], -1)
        together = (label[:, :, None] == label[:, None, :]) & (column[:, None, :] <= column[:, :, None])
        begins = torch.where(together, column[:, None, :], width).amin(-1)
        before = torch.arange(width, device=hidden.device) < begins[:, :, None]
        positions = _in_slots(batch, forced.positions[rows, at], 0)
        distance = positions[:, :, None] - torch.cat([forced.positions, positions], 1)[:, None, :]
        seen = torch.cat([forced.valid[:, None] & before, together], -1)
        copies = hidden.new_zeros(*column.shape, hidden.shape[-1])
        copies = copies.index_put((rows, batch.slots), hidden[rows, at] + shift)
        return self.upper(
            copies, attention_mask=additive_masks(self.base, seen, distance), position_ids=positions, cache=cache
        )

    @torch.no_grad()
    def _text(self, batch: GateBatch, hidden: Float[Tensor, "rows pos d_model"]) -> "_TextCache":
        """The keys and values of the unshifted texts of a batch, which are kept while there is room."""
        if id(batch) in self._texts:
            return self._texts[id(batch)][1]
        cache, width = _TextCache(), hidden.shape[1]
        masks = causal_masks(self.base, batch.forced.valid, width)
        self.upper(hidden, attention_mask=masks, position_ids=batch.forced.positions, cache=cache, logits_to_keep=1)
        cache.written = width
        if cache.size <= self._room:
            self._room -= cache.size
            self._texts[id(batch)] = batch, cache  # the batch is held, so that no other gets its id
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
            self.states[layer_idx] = key_states, value_states
            return key_states, value_states
        keys, values = self.states[layer_idx]
        return torch.cat([keys, key_states], 2), torch.cat([values, value_states], 2)

    @property
    def size(self) -> int:
        """Bytes of all keys and values."""
        return sum(tensor.nbytes for pair in self.states.values() for tensor in pair)

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 - the signature is transformers'
        return self.written


def _in_slots(batch: GateBatch, values: Int[Tensor, " gates"], empty: int) -> Int[Tensor, "rows slots"]:
    """Arrange one value for each gate in one row for each text."""
    slots = batch.slots
    out = values.new_full((len(batch.gate), int(slots.max()) + 1), empty)
    return out.index_put((batch.places[0], slots), values)


@contextmanager
def _read_only(base: Model, columns: Int[Tensor, "rows slots"]) -> Iterator[None]:
    """Compute logits only at these columns; with a large vocabulary they would take most of the time of a step."""

    def chosen(_: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0].gather(1, columns[:, :, None].expand(-1, -1, args[0].shape[-1])), *args[1:])

    head = base.hf.get_output_embeddings()
    assert head is not None  # a decoder that gives logits has one
    handle = head.register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        handle.remove()

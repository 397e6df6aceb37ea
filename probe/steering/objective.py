"""What mechanisms are learned on: cross-entropy at the gates, steered as decoding steers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache

from probe.hooks import UpperLayers, additive_masks, causal_masks
from probe.models import Model
from probe.steering.gates import GateBatch
from probe.steering.mechanism import Mechanism


@dataclass(frozen=True)
class Scored:
    """The gates of a batch under a mechanism.

    Attributes:
        losses: cross-entropy at each, in nats.
        right: whether the likeliest token is the wanted one.
    """

    losses: Float[Tensor, " gates"]
    right: Bool[Tensor, " gates"]


class GateLoss:
    """Scores batches under a mechanism; only the layers above its site are run, and logits are formed at gates only.

    Args:
        base: the base model.
        mechanism: it says which convention holds (``mechanism.persistent``), where the batch does not (``group``).
    """

    def __init__(self, base: Model, mechanism: Mechanism) -> None:
        self.base, self.mechanism = base, mechanism
        self.upper = UpperLayers(base, mechanism.layer)

    def __call__(self, batch: GateBatch, hidden: Float[Tensor, "rows pos d_model"]) -> Scored:
        """Score a batch whose residual stream at the site is ``hidden``."""
        mechanism, target = self.mechanism, batch.target[batch.gate]
        if not len(target):
            nothing = hidden.new_zeros(0, dtype=torch.float32)
            return Scored(nothing, nothing.bool())
        resid, behaviour = hidden[batch.places], batch.behaviours(mechanism.n_behaviours)
        shift = mechanism.shift(resid, mechanism.strength(resid, behaviour), behaviour).to(resid.dtype)
        run = self._at_once if batch.group is None and mechanism.persistent else self._in_groups
        logits = run(batch, hidden, shift)[batch.places[0], batch.slots].float()
        return Scored(F.cross_entropy(logits, target, reduction="none"), logits.argmax(-1) == target)

    def _at_once(
        self, batch: GateBatch, hidden: Float[Tensor, "rows pos d_model"], shift: Float[Tensor, "gates d_model"]
    ) -> Float[Tensor, "rows slots vocab"]:
        """All shifts of a text together; later tokens see them."""
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
        """Every group of gates by itself: shifted copies of its positions, behind the text, that nothing else sees.

        A copy looks at the unshifted text before its group, at the earlier copies of its group and at itself. For a
        group of one that is what re-running one cached step does. The text itself does not hang on the shifts: it runs
        without gradients, and only its keys and values stay.
        """
        forced, (rows, at), width = batch.forced, batch.places, hidden.shape[1]
        cache = _TextCache()
        with torch.no_grad():
            masks = causal_masks(self.base, forced.valid, width)
            self.upper(hidden, attention_mask=masks, position_ids=forced.positions, cache=cache, logits_to_keep=1)
        cache.written = width

        column = _in_slots(batch, at, width)  # a slot without a gate looks at all of the text, and is not read
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


class _TextCache(Cache):
    """Keys and values of a text; once it is written, what is run on it sees it and leaves nothing behind."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.written = 0
        """How many columns the text has; none while it is being written."""
        self.states: dict[int, tuple[Tensor, Tensor]] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        if not self.written:
            self.states[layer_idx] = key_states, value_states
            return key_states, value_states
        keys, values = self.states[layer_idx]
        return torch.cat([keys, key_states], 2), torch.cat([values, value_states], 2)

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 - the signature is transformers'
        return self.written


def _in_slots(batch: GateBatch, values: Int[Tensor, " gates"], empty: int) -> Int[Tensor, "rows slots"]:
    """What is said of each gate, one row a text, its gates side by side."""
    slots = batch.slots
    out = values.new_full((len(batch.gate), int(slots.max()) + 1), empty)
    return out.index_put((batch.places[0], slots), values)


@contextmanager
def _read_only(base: Model, columns: Int[Tensor, "rows slots"]) -> Iterator[None]:
    """Form logits at these columns of each row alone: most of a step's time, where the vocabulary is large."""

    def chosen(_: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0].gather(1, columns[:, :, None].expand(-1, -1, args[0].shape[-1])), *args[1:])

    head = base.hf.get_output_embeddings()
    assert head is not None  # a decoder that gives logits has one
    handle = head.register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        handle.remove()

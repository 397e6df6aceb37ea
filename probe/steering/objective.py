"""What the vectors are learned on: cross-entropy at the gates, steered as decoding steers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from probe.hooks import UpperLayers, additive_masks, capture, causal_masks
from probe.models import Model
from probe.steering.gates import GateBatch
from probe.steering.vectors import BehaviourVectors


class Objective:
    """The loss of some vectors on a batch.

    Only the layers above the site are run with gradients; what lies below does not depend on the vectors.

    Args:
        base: the base model.
        vectors: they say which convention holds (``vectors.persistent``).
    """

    def __init__(self, base: Model, vectors: BehaviourVectors) -> None:
        self.base, self.vectors = base, vectors
        self.upper = UpperLayers(base, vectors.layer)

    def __call__(self, batch: GateBatch) -> tuple[Float[Tensor, ""], int, int]:
        """Summed cross-entropy at the gates of a batch, how many are right, and how many there are."""
        behaviour, target = batch.behaviour[batch.gate], batch.target[batch.gate]
        behaviour = behaviour.clamp(max=self.vectors.n_behaviours - 1)
        hidden = resid_below(self.base, batch, self.vectors.layer)
        resid = hidden[batch.places]
        shift = self.vectors.shift(self.vectors.strength(resid, behaviour), behaviour).to(resid.dtype)
        steered = (_persistent if self.vectors.persistent else _transient)(self.base, batch, hidden, shift)
        logits = self.upper(steered.hidden, attention_mask=steered.masks, position_ids=steered.positions)
        logits = logits[batch.places[0], steered.columns].float()
        return F.cross_entropy(logits, target, reduction="sum"), int((logits.argmax(-1) == target).sum()), len(target)


@dataclass(frozen=True)
class _Steered:
    """The texts of a batch with their shifts in place: what the upper layers read, and in which column each gate is."""

    hidden: Float[Tensor, "rows pos d_model"]
    masks: Tensor | dict[str, Tensor]
    positions: Int[Tensor, "rows pos"]
    columns: Int[Tensor, " gates"]


def _persistent(
    base: Model, batch: GateBatch, hidden: Float[Tensor, "rows pos d_model"], shift: Float[Tensor, "gates d_model"]
) -> _Steered:
    """All shifts of a text at once; later tokens see them."""
    masks = causal_masks(base, batch.forced.valid, hidden.shape[1])
    shifted = hidden.index_put(batch.places, shift, accumulate=True)
    return _Steered(shifted, masks, batch.forced.positions, batch.places[1])


def _transient(
    base: Model, batch: GateBatch, hidden: Float[Tensor, "rows pos d_model"], shift: Float[Tensor, "gates d_model"]
) -> _Steered:
    """Every gate by itself: a shifted copy of its position, appended to the text, that nothing else sees.

    A copy looks at the unshifted text before it and at itself, which is what re-running one cached step does.
    """
    forced, (n, width), (rows, at) = batch.forced, batch.forced.ids.shape, batch.places
    slot = width + (batch.gate.cumsum(1) - 1)[batch.gate]
    extra = int(batch.gate.sum(1).max())
    longer = torch.cat([hidden, hidden.new_zeros(n, extra, hidden.shape[-1])], 1)
    longer = longer.index_put((rows, slot), hidden[rows, at] + shift)
    positions = torch.cat([forced.positions, forced.positions.new_zeros(n, extra)], 1)
    positions[rows, slot] = forced.positions[rows, at]
    column = torch.arange(width + extra, device=hidden.device)
    seen = (column[:, None] == column).repeat(n, 1, 1)
    seen[:, :width, :width] |= forced.valid[:, None] & (column[:width] <= column[:width, None])
    seen[rows, slot, :width] = forced.valid[rows] & (column[:width] < at[:, None])
    distance = positions[:, :, None] - positions[:, None, :]
    return _Steered(longer, additive_masks(base, seen, distance), positions, slot)


@torch.no_grad()
def resid_below(base: Model, batch: GateBatch, layer: int) -> Float[Tensor, "rows pos d_model"]:
    """``resid_post.layer`` of the texts of a batch; nothing above it is run."""
    site = f"resid_post.{layer}"
    with capture(base, site) as acts:
        base.hf(
            input_ids=batch.forced.ids,
            attention_mask=causal_masks(base, batch.forced.valid, batch.forced.ids.shape[1]),
            position_ids=batch.forced.positions,
            use_cache=False,
        )
    return acts[site]


def typical_coordinate(base: Model, batches: Sequence[GateBatch], layer: int) -> float:
    """The median size of a coordinate of the residual stream at a site: the unit that vectors are learned in."""
    states = [resid_below(base, batch, layer)[batch.forced.valid] for batch in batches]
    return torch.cat(states).float().square().median().sqrt().item()

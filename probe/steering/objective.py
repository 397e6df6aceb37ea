"""What mechanisms are learned on: cross-entropy at the gates, steered as decoding steers."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

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
        behaviour, strength: what was added.
    """

    losses: Float[Tensor, " gates"]
    right: Bool[Tensor, " gates"]
    behaviour: Int[Tensor, " gates"]
    strength: Float[Tensor, " gates"]


class Objective:
    """Scores batches under a mechanism; only the layers above its site are run.

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
        behaviour = batch.behaviour[batch.gate].clamp(max=mechanism.n_behaviours - 1)
        if not len(target):
            nothing = hidden.new_zeros(0)
            return Scored(nothing, nothing.bool(), behaviour, nothing)
        resid = hidden[batch.places]
        strength = mechanism.strength(resid, behaviour)
        shift = mechanism.shift(resid, strength, behaviour).to(resid.dtype)
        if batch.group is None and mechanism.persistent:
            steered = _persistent(self.base, batch, hidden, shift)
        else:
            steered = _copies(self.base, batch, hidden, shift)
        logits = self.upper(steered.hidden, attention_mask=steered.masks, position_ids=steered.positions)
        logits = logits[batch.places[0], steered.columns].float()
        losses = F.cross_entropy(logits, target, reduction="none")
        return Scored(losses, logits.argmax(-1) == target, behaviour, strength)


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


def _copies(
    base: Model, batch: GateBatch, hidden: Float[Tensor, "rows pos d_model"], shift: Float[Tensor, "gates d_model"]
) -> _Steered:
    """Every group of gates by itself: shifted copies of its positions, appended to the text, that nothing else sees.

    A copy looks at the unshifted text before its group, at the earlier copies of its group and at itself. For a group
    of one that is what re-running one cached step does.
    """
    forced, (n, width), (rows, at) = batch.forced, batch.forced.ids.shape, batch.places
    slot = (batch.gate.cumsum(1) - 1)[batch.gate]
    extra = int(batch.gate.sum(1).max())
    longer = torch.cat([hidden, hidden.new_zeros(n, extra, hidden.shape[-1])], 1)
    longer = longer.index_put((rows, width + slot), hidden[rows, at] + shift)
    positions = torch.cat([forced.positions, forced.positions.new_zeros(n, extra)], 1)
    positions[rows, width + slot] = forced.positions[rows, at]

    label = torch.full((n, extra), -1, device=hidden.device)
    label[rows, slot] = at if batch.group is None else batch.group[batch.gate]
    column = torch.full((n, extra), width, device=hidden.device)
    column[rows, slot] = at
    together = (label[:, :, None] == label[:, None, :]) & (column[:, None, :] <= column[:, :, None])
    begins = torch.where(together, column[:, None, :], width).amin(-1)

    text = torch.arange(width, device=hidden.device)
    seen = torch.zeros(n, width + extra, width + extra, dtype=torch.bool, device=hidden.device)
    seen[:, :width, :width] = (forced.valid[:, None] & (text <= text[:, None])) | (text == text[:, None])
    seen[:, width:, :width] = forced.valid[:, None] & (text < begins[:, :, None])
    seen[:, width:, width:] = together
    distance = positions[:, :, None] - positions[:, None, :]
    return _Steered(longer, additive_masks(base, seen, distance), positions, width + slot)

"""How much each gate counts in a step: all alike, or all behaviours alike."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probe.steering.config import SteeringConfig
from probe.steering.gates import GateBatch


def gate_weights(
    batches: Sequence[GateBatch], n_behaviours: int, config: SteeringConfig, generator: torch.Generator
) -> list[Float[Tensor, " gates"]]:
    """The weight of each gate's loss, batch by batch; over all of them they sum to one.

    Balanced, the loss is averaged over the gates of a behaviour and then over the behaviours present, and at most
    ``config.per_trace`` gates of a behaviour count in a trace (Venhoff et al., 2510.07364v4); which, is drawn.

    Args:
        batches: all batches of a step, those of other processes included.
    """
    weights = [torch.ones(int(batch.gate.sum()), device=batch.gate.device) for batch in batches]
    if not config.balance:
        total = max(sum(map(len, weights)), 1)
        return [weight / total for weight in weights]
    behaviours = [batch.behaviours(n_behaviours) for batch in batches]
    if config.per_trace is not None:
        weights = [
            _drawn(batch.places[0] * n_behaviours + behaviour, config.per_trace, generator).to(weight)
            for batch, behaviour, weight in zip(batches, behaviours, weights, strict=True)
        ]
    counts = torch.stack(
        [torch.bincount(k, w, minlength=n_behaviours) for k, w in zip(behaviours, weights, strict=True)]
    ).sum(0)
    share = 1 / (counts.clamp(min=1) * (counts > 0).sum().clamp(min=1))
    return [weight * share[behaviour] for weight, behaviour in zip(weights, behaviours, strict=True)]


def _drawn(kind: Tensor, most: int, generator: torch.Generator) -> Bool[Tensor, " gates"]:
    """At most so many of each kind, at random."""
    kind = kind.cpu()
    order = torch.randperm(len(kind), generator=generator)
    kinds, within = kind[order].sort(stable=True)
    before = torch.arange(len(kind)) - torch.searchsorted(kinds, kinds)
    drawn = torch.zeros(len(kind), dtype=torch.bool)
    drawn[order[within]] = before < most
    return drawn

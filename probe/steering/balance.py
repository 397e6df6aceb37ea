"""Weights of the gates in a training step: equal for all gates, or equal for all behaviours."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probe.steering.config import SteeringConfig
from probe.steering.gates import GateBatch


def gate_weights(
    batches: Sequence[GateBatch], n_behaviours: int, config: SteeringConfig, generator: torch.Generator
) -> list[Float[Tensor, " gates"]]:
    """Compute the weight of each gate's loss; the weights of all batches together sum to one.

    With ``config.balance`` the loss is averaged over the gates of each behaviour and then over the behaviours present.
    At most ``config.per_trace`` gates of a behaviour count in one trace, chosen at random (Venhoff et al.,
    2510.07364v4).

    Args:
        batches: all batches of a step, including those of other processes.
        n_behaviours: K of the mechanism.
        config: the settings ``balance`` and ``per_trace`` are used.
        generator: a CPU generator for the random choice.

    Returns:
        For each batch, one weight for each of its gates.
    """
    weights = [torch.ones(int(batch.gate.sum()), device=batch.gate.device) for batch in batches]
    if not config.balance:
        total = max(sum(map(len, weights)), 1)
        return [weight / total for weight in weights]
    behaviours = [batch.behaviours(n_behaviours) for batch in batches]
    if config.per_trace is not None:
        weights = [
            _random_subset(batch.places[0] * n_behaviours + behaviour, config.per_trace, generator).to(weight)
            for batch, behaviour, weight in zip(batches, behaviours, weights, strict=True)
        ]
    counts = torch.stack(
        [torch.bincount(k, w, minlength=n_behaviours) for k, w in zip(behaviours, weights, strict=True)]
    ).sum(0)
    share = 1 / (counts.clamp(min=1) * (counts > 0).sum().clamp(min=1))
    return [weight * share[behaviour] for weight, behaviour in zip(weights, behaviours, strict=True)]


def _random_subset(kind: Tensor, most: int, generator: torch.Generator) -> Bool[Tensor, " gates"]:
    """Choose at most ``most`` gates of each kind at random."""
    kind = kind.cpu()
    order = torch.randperm(len(kind), generator=generator)
    kinds, within = kind[order].sort(stable=True)
    before = torch.arange(len(kind)) - torch.searchsorted(kinds, kinds)
    chosen = torch.zeros(len(kind), dtype=torch.bool)
    chosen[order[within]] = before < most
    return chosen

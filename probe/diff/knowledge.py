"""Where what is known is held: causal tracing maps of two models, how alike they are, and patches across models."""

from dataclasses import dataclass

import numpy as np
import torch

from probe.circuits import Pairs, PatchMap, patch
from probe.models import Pair

_LAST = 24
"""Tokens that are traced, counted from the end."""


@dataclass(frozen=True)
class KnowledgeMaps:
    """The same pairs of texts traced in two models.

    Attributes:
        base, thinking: share of what tells the texts apart that each state brings back, by block and token.
        into_thinking, into_base: the same with states of the other model's run put in.
        correlation: Pearson's, of the two models' maps over all places.
        within: of the maps of two halves of the pairs in the base: what noise allows.
        largest: the largest absolute difference of the two maps.
    """

    base: PatchMap
    thinking: PatchMap
    into_thinking: PatchMap
    into_base: PatchMap
    correlation: float
    within: float
    largest: float


def knowledge_maps(pair: Pair, pairs: Pairs, *, site: str = "resid_pre", progress: bool = False) -> KnowledgeMaps:
    """Trace what tells pairs of texts apart through both models, and across them.

    Du et al. (2504.02904) find locations nearly unchanged by post-training, and base states that work in the
    post-trained model better than the other way round.

    Args:
        pairs: both models read the same ids; of ``operand_pairs`` a number is traced to where it is used.
        site: what is patched, token by token.
        progress: show a bar.

    Raises:
        ProbeError: if the two models differ in width or depth.
    """
    base, thinking = pair.base, pair.thinking
    first, second = (patch(model, pairs, site, last=_LAST, progress=progress) for model in (base, thinking))
    forth, back = (
        patch(into, pairs, site, source=source, last=_LAST, progress=progress)
        for into, source in ((thinking, base), (base, thinking))
    )
    within = map_correlation(*(patch(base, half, site, last=_LAST) for half in pairs.split()))
    apart = (first.values - second.values).abs().max()
    return KnowledgeMaps(first, second, forth, back, map_correlation(first, second), within, float(apart))


def map_correlation(first: PatchMap, second: PatchMap) -> float:
    """Pearson's, over the blocks and tokens that both have; tokens count from the last."""
    n = min(first.values.shape[1], second.values.shape[1])
    pair = torch.stack([each.values[:, -n:].flatten() for each in (first, second)])
    return float(np.corrcoef(pair.numpy())[0, 1])

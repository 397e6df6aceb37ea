"""Where information is represented: causal tracing maps of two models, and patching across the models."""

from dataclasses import dataclass

import numpy as np
import torch

from probe.circuits import Pairs, PatchMap, patch
from probe.models import Pair

_LAST = 24
"""Number of tokens that are traced, at the end of a text."""


@dataclass(frozen=True)
class KnowledgeMaps:
    """Causal tracing maps of the same pairs of texts in two models.

    Attributes:
        base: share of the logit difference that each state restores in the base, by block and token.
        thinking: the same in the thinking model.
        into_thinking: the same in the thinking model with states of the base's run.
        into_base: the same in the base with states of the thinking model's run.
        correlation: Pearson correlation of ``base`` and ``thinking`` over all entries.
        within: Pearson correlation of the maps of two halves of the pairs in the base, which shows the noise.
        largest: largest absolute difference of ``base`` and ``thinking``.
    """

    base: PatchMap
    thinking: PatchMap
    into_thinking: PatchMap
    into_base: PatchMap
    correlation: float
    within: float
    largest: float


def knowledge_maps(
    pair: Pair, pairs: Pairs, *, site: str = "resid_pre", last: int = _LAST, progress: bool = False
) -> KnowledgeMaps:
    """Trace pairs of texts in both models by activation patching, and across the models.

    Du et al. (2504.02904) find that post-training hardly changes locations, and that states of the base work better in
    the post-trained model than the other way round.

    Args:
        pair: the two models; they read the same token ids.
        pairs: clean and corrupt texts; those of ``operand_pairs`` trace a number to where it is used.
        site: the kind of site that is patched, token by token.
        last: number of tokens that are patched, at the end of a text; each costs a pass for every block.
        progress: show progress bars.

    Raises:
        NotApplicable: if the two models differ in width or depth, or the texts do not differ in the metric.
    """
    base, thinking = pair.base, pair.thinking
    first, second = (patch(model, pairs, site, last=last, progress=progress) for model in (base, thinking))
    forth, back = (
        patch(into, pairs, site, source=source, last=last, progress=progress)
        for into, source in ((thinking, base), (base, thinking))
    )
    within = map_correlation(*(patch(base, half, site, last=last) for half in pairs.split()))
    apart = (first.values - second.values).abs().max()
    return KnowledgeMaps(first, second, forth, back, map_correlation(first, second), within, float(apart))


def map_correlation(first: PatchMap, second: PatchMap) -> float:
    """Pearson correlation of two maps over the blocks and the last tokens that both have.

    Args:
        first, second: maps of models with equally many blocks.
    """
    n = min(first.values.shape[1], second.values.shape[1])
    pair = torch.stack([each.values[:, -n:].flatten() for each in (first, second)])
    return float(np.corrcoef(pair.numpy())[0, 1])

"""Outlier tokens: those whose norm is many times the median, most of them attention sinks at the first position.

One such token, hundreds of times as long as its neighbours (Sun et al. 2024, arXiv 2402.17762), would be most of the
mean of its sentence, and most of what an SAE learns to reconstruct.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from probe.activations.documents import Document
from probe.activations.passes import batches, norms, read
from probe.models import Model

_SAMPLE, _EACH = 512, 64
"""How many tokens the median is taken of, and how many a document gives at most: its first."""
_COMMONEST = 5


@dataclass(frozen=True)
class Scale:
    """How large activations are at a site."""

    shape: tuple[int, ...]
    """Of one token's activation; a row is it, flattened."""
    median: float | None
    """Of the norms of the first few documents' tokens; None if there are no tokens."""
    limit: float | None
    """The norm above which a token is an outlier; None if none is."""

    @property
    def width(self) -> int:
        return torch.Size(self.shape).numel()


def measure(
    model: Model, documents: Sequence[Document], sites: Sequence[str], multiple: float | None
) -> dict[str, Scale]:
    """The median norm at each site, and the limit that is ``multiple`` times it.

    The documents and their batches do not depend on how the harvest goes about its own, so that a harvest that was
    broken off measures the same.

    Raises:
        ProbeError: if a site has no vector for each token.
    """
    sample: list[tuple[int, ...]] = []
    for document in documents:
        if sum(map(len, sample)) >= _SAMPLE:
            break
        sample.append(document.ids[:_EACH])
    found: dict[str, list[Tensor]] = {site: [] for site in sites}
    shapes: dict[str, tuple[int, ...]] = {site: (model.d_model,) for site in sites}
    for batch in batches([len(ids) for ids in sample], _SAMPLE):
        states, real = read(model, [sample[i] for i in batch], sites)
        for site in sites:
            shapes[site] = tuple(states[site].shape[2:])
            found[site].append(norms(states[site])[real])
    return {site: _scale(shapes[site], found[site], multiple) for site in sites}


def _scale(shape: tuple[int, ...], found: Sequence[Tensor], multiple: float | None) -> Scale:
    every = torch.cat([torch.empty(0), *(part.cpu() for part in found)])
    finite = every[every.isfinite()]
    if not len(finite):
        return Scale(shape, None, None)
    median = finite.median().item()
    return Scale(shape, median, None if multiple is None else multiple * median)


@dataclass(frozen=True)
class OutlierReport:
    """What was seen of a site's outlier tokens."""

    median: float | None
    limit: float | None
    read: int
    """How many tokens were read."""
    tokens: int
    """How many of them were outliers."""
    first: int
    """How many of these begin their document."""
    commonest: list[dict[str, Any]]
    """``id``, ``text`` and ``count`` of the commonest."""

    @classmethod
    def of(cls, model: Model, scale: Scale, read: int, outliers: Int[Tensor, "outlier 3"]) -> "OutlierReport":
        """Sum up the outliers of a site, given the document, position and token id of each."""
        ids = Counter(outliers[:, 2].tolist())
        commonest = sorted(ids.items(), key=lambda item: (-item[1], item[0]))[:_COMMONEST]
        return cls(
            scale.median,
            scale.limit,
            read,
            len(outliers),
            int((outliers[:, 1] == 0).sum()),
            [{"id": i, "text": model.decode([i]), "count": count} for i, count in commonest],
        )

    def __str__(self) -> str:
        if self.limit is None:
            return "none left out"
        named = ", ".join(f"{each['text']!r} × {each['count']}" for each in self.commonest)
        return f"{self.tokens} of {self.read} tokens above {self.limit:.3g}, {self.first} of them at position 0" + (
            f"; commonest: {named}" if named else ""
        )

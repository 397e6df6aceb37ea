"""Outlier tokens: tokens whose norm is many times the median, mostly attention sinks at the first position.

Such a token can be hundreds of times as long as its neighbours (Sun et al. 2024, arXiv 2402.17762). It would dominate
the mean of its sentence, and what an SAE learns to reconstruct.
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
from probe.traces import token_name

SAMPLE, _EACH = 512, 64
"""The number of tokens for the median, and the most that are taken from the start of one document."""
_COMMONEST = 5


@dataclass(frozen=True)
class SiteScale:
    """The size of activations at a site."""

    shape: tuple[int, ...]
    """The shape of one token's activation; rows are flattened."""
    median: float | None
    """The median norm of tokens of the first few documents; None if there are no tokens."""
    limit: float | None
    """The norm above which a token is an outlier; None for no limit."""

    @property
    def width(self) -> int:
        """The number of values in a row."""
        return torch.Size(self.shape).numel()


def measure(
    model: Model, documents: Sequence[Document], sites: Sequence[str], multiple: float | None, batch_tokens: int
) -> dict[str, SiteScale]:
    """Measure the median norm at each site, and the limit that is ``multiple`` times it.

    The sample does not depend on the batches or shards of the harvest, so an interrupted harvest measures the same when
    it resumes.

    Args:
        multiple: the limit, in multiples of the median; None for no limit.
        batch_tokens: the maximum number of tokens in one pass; of at most `SAMPLE` in all.

    Raises:
        ProbeError: if a site has no vector for each token.
    """
    sample: list[tuple[int, ...]] = []
    for document in documents:
        if sum(map(len, sample)) >= SAMPLE:
            break
        sample.append(document.ids[:_EACH])
    found: dict[str, list[Tensor]] = {site: [] for site in sites}
    shapes: dict[str, tuple[int, ...]] = {site: (model.d_model,) for site in sites}
    for batch in batches([len(ids) for ids in sample], batch_tokens):
        states, real = read(model, [sample[i] for i in batch], sites)
        for site in sites:
            shapes[site] = tuple(states[site].shape[2:])
            found[site].append(norms(states[site])[real])
    return {site: _scale(shapes[site], found[site], multiple) for site in sites}


def _scale(shape: tuple[int, ...], found: Sequence[Tensor], multiple: float | None) -> SiteScale:
    every = torch.cat([torch.empty(0), *(part.cpu() for part in found)])
    finite = every[every.isfinite()]
    if not len(finite):
        return SiteScale(shape, None, None)
    median = finite.median().item()
    return SiteScale(shape, median, None if multiple is None else multiple * median)


@dataclass(frozen=True)
class OutlierReport:
    """A summary of the outlier tokens at a site."""

    median: float | None
    """The median norm; None if there are no tokens."""
    limit: float | None
    """The norm above which a token is an outlier; None for no limit."""
    read: int
    """The number of tokens that were read."""
    tokens: int
    """The number of outlier tokens."""
    first: int
    """The number of outlier tokens that begin their document."""
    commonest: list[dict[str, Any]]
    """``id``, ``text`` and ``count`` of the most common outlier tokens."""

    @classmethod
    def of(cls, model: Model, scale: SiteScale, read: int, outliers: Int[Tensor, "outlier 3"]) -> "OutlierReport":
        """Summarise the outliers of a site.

        Args:
            model: decodes the tokens.
            scale: the size of activations at the site.
            read: the number of tokens that were read.
            outliers: document, position and token id of each outlier.
        """
        ids = Counter(outliers[:, 2].tolist())
        commonest = sorted(ids.items(), key=lambda item: (-item[1], item[0]))[:_COMMONEST]
        return cls(
            scale.median,
            scale.limit,
            read,
            len(outliers),
            int((outliers[:, 1] == 0).sum()),
            [{"id": i, "text": token_name(i, model.decode, model.tokenizer), "count": count} for i, count in commonest],
        )

    def __str__(self) -> str:
        if self.limit is None:
            return "none left out"
        named = ", ".join(f"{each['text']!r} × {each['count']}" for each in self.commonest)
        return f"{self.tokens} of {self.read} tokens above {self.limit:.3g}, {self.first} of them at position 0" + (
            f"; commonest: {named}" if named else ""
        )

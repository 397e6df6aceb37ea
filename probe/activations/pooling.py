"""Make a shard: the rows of some documents, averaged on the model's device so that only rows leave it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.activations.documents import Document, Unit, runs
from probe.activations.outliers import SiteScale
from probe.activations.passes import batches, means, norms, read, to_device
from probe.hooks import not_finite
from probe.models import Model


@dataclass(frozen=True)
class Shard:
    """The rows of some documents, in their order, for each site."""

    vectors: dict[str, Float[Tensor, "row _"]]
    alone: dict[str, Bool[Tensor, " row"]]
    """True for rows that have only outlier tokens."""
    outliers: dict[str, Int[Tensor, "_ 3"]]
    """Document, position and token id of every outlier token that was read, in a row or not."""


def make_shard(
    model: Model,
    documents: Sequence[Document],
    first: int,
    scales: Mapping[str, SiteScale],
    unit: Unit,
    dtype: torch.dtype,
    batch_tokens: int,
) -> Shard:
    """Read the documents of a shard, in batches of their own: no other shard changes how they are padded.

    Args:
        first: the number of the first of them in the harvest.
        scales: the size of activations at each site; its keys are the sites that are read.
        unit: whether a row is a sentence or a token.
        batch_tokens: the maximum number of tokens in one pass, padding included.

    Raises:
        ProbeError: if the state at a token of a row is not finite.
    """
    rows = [document.rows(unit) for document in documents]
    offsets = torch.tensor([0, *map(len, rows)]).cumsum(0).tolist()
    # A document without rows is not read.
    lengths = [len(document.ids) if len(own) else 0 for document, own in zip(documents, rows, strict=True)]
    shard = Shard(
        {site: torch.empty(offsets[-1], scale.width, dtype=dtype) for site, scale in scales.items()},
        {site: torch.empty(offsets[-1], dtype=torch.bool) for site in scales},
        {},
    )
    seen: dict[str, list[tuple[int, int, int]]] = {site: [] for site in scales}

    def place(batch: list[int], pooled: "_Pooled") -> None:
        if pooled.copied is not None:
            pooled.copied.synchronize()
        where = torch.cat([torch.arange(offsets[i], offsets[i + 1]) for i in batch])
        for site, (vectors, alone, outlying, bad) in pooled.by_site.items():
            if bad.any():
                row = int(where[bad][0])
                of = int(torch.searchsorted(torch.tensor(offsets), row, right=True)) - 1
                named = f" ({documents[of].name})" if documents[of].name else ""
                what = f"a state at {site} in {unit} {row - offsets[of]} of document {first + of}{named}"
                raise not_finite(what, model)
            shard.vectors[site][where] = vectors
            shard.alone[site][where] = alone
            at = outlying.nonzero().tolist()
            seen[site] += [(first + batch[row], pos, documents[batch[row]].ids[pos]) for row, pos in at]

    # A batch is placed while the device works on the next one, so that neither waits for the other.
    before: tuple[list[int], _Pooled] | None = None
    for batch in batches(lengths, batch_tokens):
        pooled = _pool(model, [documents[i] for i in batch], [rows[i] for i in batch], scales, dtype)
        if before is not None:
            place(*before)
        before = batch, pooled
    if before is not None:
        place(*before)
    for site, outliers in seen.items():
        shard.outliers[site] = torch.tensor(sorted(outliers), dtype=torch.int32).reshape(-1, 3)
    return shard


@dataclass(frozen=True)
class _Pooled:
    """What one pass gives; the copies to the host may still be under way."""

    by_site: dict[
        str, tuple[Float[Tensor, "row _"], Bool[Tensor, " row"], Bool[Tensor, "batch pos"], Bool[Tensor, " row"]]
    ]
    """Rows, which rows have only outliers, outlier tokens, and which rows are not finite."""
    copied: torch.cuda.Event | None
    """Says when the copies are complete; None if they are."""


def _pool(
    model: Model,
    documents: Sequence[Document],
    rows: Sequence[Int[Tensor, "_ 3"]],
    scales: Mapping[str, SiteScale],
    dtype: torch.dtype,
) -> _Pooled:
    """Run one pass, and average its states on the device."""
    sequences = [document.ids for document in documents]
    width = max(map(len, sequences))
    starts = torch.cat([own[:, 1] + i * width for i, own in enumerate(rows)])
    lengths = torch.cat([own[:, 2] - own[:, 1] for own in rows])
    at, lengths = to_device(runs(starts, lengths), model.device), to_device(lengths, model.device)
    seen, real = read(model, sequences, list(scales))

    def pooled(site: str, limit: float | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        states = seen[site]
        size = norms(states)
        # Not ">": a norm that is NaN counts as an outlier too.
        outlying = torch.zeros_like(real) if limit is None else real & ~(size <= limit)
        vectors, alone = means(states, outlying, at, lengths)
        vectors = vectors.to(dtype)
        bad = torch.segment_reduce((~size.isfinite()).flatten()[at].float(), "max", lengths=lengths, unsafe=True) > 0
        bad |= ~vectors.isfinite().all(-1)  # a smaller format may not hold what the model computed
        return _to_host(vectors), _to_host(alone), _to_host(outlying), _to_host(bad)

    by_site = {site: pooled(site, scale.limit) for site, scale in scales.items()}
    if model.device.type != "cuda":
        return _Pooled(by_site, None)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(model.device))
    return _Pooled(by_site, copied)


def _to_host(tensor: Tensor) -> Tensor:
    return tensor.to("cpu", non_blocking=tensor.device.type == "cuda")

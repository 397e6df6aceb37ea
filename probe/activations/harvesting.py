"""Harvest activations: one pass over documents gives a row for each sentence or token at each site.

The model runs only up to the deepest site. Sentences are averaged on its device, so only one vector for each sentence
leaves it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, overload

import pyarrow as pa
import torch
from tqdm.auto import tqdm

from probe.activations.documents import Document, Unit, documents_of
from probe.activations.index import index_table
from probe.activations.outliers import OutlierReport, SiteScale, measure
from probe.activations.passes import no_vectors
from probe.activations.pooling import Shard, make_shard
from probe.activations.sentences import SentenceActivations, pairs
from probe.activations.shards import ShardFolder
from probe.activations.store import ActivationStore
from probe.errors import ProbeError
from probe.files import object_hash
from probe.hooks import as_sites
from probe.models import Model, Site, as_dtype, place
from probe.traces import Traces

Readable = Traces | Sequence[Document | str | Sequence[int]]


@overload
def harvest(
    model: Model,
    what: Readable,
    sites: str | Site | Sequence[str | Site],
    *,
    unit: Literal["sentence"] = ...,
    folder: str | Path | None = ...,
    dtype: str | torch.dtype | None = ...,
    batch_tokens: int = ...,
    shard_traces: int = ...,
    outliers: float | None = ...,
    progress: bool = ...,
) -> SentenceActivations: ...
@overload
def harvest(
    model: Model,
    what: Readable,
    sites: str | Site | Sequence[str | Site],
    *,
    unit: Literal["token"],
    folder: str | Path,
    dtype: str | torch.dtype | None = ...,
    batch_tokens: int = ...,
    shard_traces: int = ...,
    outliers: float | None = ...,
    progress: bool = ...,
) -> ActivationStore: ...
def harvest(
    model: Model,
    what: Readable,
    sites: str | Site | Sequence[str | Site],
    *,
    unit: Unit = "sentence",
    folder: str | Path | None = None,
    dtype: str | torch.dtype | None = None,
    batch_tokens: int = 8192,
    shard_traces: int = 512,
    outliers: float | None = 10.0,
    progress: bool = False,
) -> SentenceActivations | ActivationStore:
    """Harvest a model's activations: the mean over each sentence's tokens, or each token's own.

    A trace is read with its prompt, but only emitted tokens have rows. A sentence inside a token that began earlier has
    no row.

    Args:
        model: the model that reads; usually, but not necessarily, the one that wrote the traces.
        what: traces, or a sequence of texts, token ids or documents; see `documents_of`.
        sites: the sites, all read in the same pass. A token's activation is flattened to one vector.
        unit: ``sentence`` for one row for each sentence (or other span), its mean; ``token`` for one row for each token
            of the spans. Tokens need a folder, and memory for the vectors of one shard.
        folder: the result is streamed here in shards; a later call with the same arguments makes only shards that are
            missing or damaged. Weights are identified by the model's path alone. None: keep the result in memory.
        dtype: the dtype of the rows; None for the model's.
        batch_tokens: the maximum number of tokens in one forward pass, padding included (a longer document runs alone).
        shard_traces: the number of traces or other documents in a shard; an interrupted run loses at most one shard.
        outliers: leave tokens whose norm exceeds this multiple of the median out of their sentence's mean. Rows that
            have only outliers stay, and the store flags them. None: keep all tokens.
        progress: show a progress bar.

    Returns:
        The vectors in memory for sentences (``ActivationStore.open(folder)`` reads them from disk); the store for
        tokens.

    Raises:
        ProbeError: if the model lacks a site or has no vector for each token there, cannot read a document's ids or
            as many tokens, ``folder`` holds another harvest, or an argument is invalid.
    """
    names = [str(site) for site in as_sites(sites)]
    _check(model, names, unit, folder, batch_tokens, shard_traces, outliers)
    kept = model.dtype if dtype is None else as_dtype(dtype)
    documents = documents_of(model, what)
    model.check_ids(document.ids for document in documents)
    parts = [documents[i : i + shard_traces] for i in range(0, len(documents), shard_traces)] or [[]]
    files = None
    if folder is not None:
        config = model.config
        about = {
            "model": model.name,
            "path": config.path,
            "revision": config.revision,
            "model_dtype": _name(model.dtype),
            "unit": unit,
            "dtype": _name(kept),
            "outlier_multiple": outliers,
            "shard_traces": shard_traces,
        }
        key = object_hash({**about, "sites": names, "documents": [object_hash(vars(each)) for each in documents]})
        files = ShardFolder.begin(Path(folder), key, about, len(parts))
    scales = files.scales if files else None
    if scales is None:
        scales = measure(model, documents, names, outliers)
        if files:
            files.keep_scales(scales)
    made: list[Shard] = []
    with tqdm(total=len(documents), desc=f"activations of {model.name}", unit="doc", disable=not progress) as bar:
        for number, part in enumerate(parts):
            if files and files.done(number):
                bar.update(len(part))
                continue
            shard = make_shard(model, part, number * shard_traces, scales, unit, kept, batch_tokens, bar)
            if files:
                files.write(number, shard)
            else:
                made.append(shard)
    if files is None:
        vectors = {site: torch.cat([shard.vectors[site] for shard in made]) for site in names}
        index, reports = _sum_up(model, documents, unit, scales, made)
        return SentenceActivations(vectors, pairs(index), index["text"].to_pylist(), model.name, reports)
    if not files.ended:
        files.end(*_sum_up(model, documents, unit, scales, list(files.shards())))
    store = ActivationStore(files)  # every file was checked or written above
    return SentenceActivations.of(store) if unit == "sentence" else store


def _check(
    model: Model,
    sites: Sequence[str],
    unit: str,
    folder: str | Path | None,
    batch_tokens: int,
    shard_traces: int,
    outliers: float | None,
) -> None:
    """Check the arguments before any work is done."""
    if not sites:
        raise ProbeError("nothing to harvest; give at least one site")
    for site in sites:
        place(model.hf, site)
        if not Site.parse(site).by_token:
            raise no_vectors(site)
    if unit not in ("sentence", "token"):
        raise ProbeError(f"unknown unit '{unit}'; use sentence or token")
    if unit == "token" and folder is None:
        raise ProbeError("a harvest of tokens is too large for memory; give a folder")
    if min(batch_tokens, shard_traces) < 1:
        raise ProbeError(f"batch_tokens={batch_tokens} and shard_traces={shard_traces} must be at least 1")
    if outliers is not None and not 1 < outliers < float("inf"):
        raise ProbeError(
            f"outliers={outliers} is not a multiple of the median norm; use one above 1, or None for no filter"
        )


def _sum_up(
    model: Model, documents: Sequence[Document], unit: Unit, scales: Mapping[str, SiteScale], shards: Sequence[Shard]
) -> tuple[pa.Table, dict[str, OutlierReport]]:
    """Make the index, and a summary of outliers at each site."""
    alone = {site: torch.cat([shard.alone[site] for shard in shards]) for site in scales}
    index = index_table(model, documents, unit, alone)
    read = sum(len(document.ids) for document in documents if any(start < end for start, end in document.spans))
    return index, {
        site: OutlierReport.of(model, scale, read, torch.cat([shard.outliers[site] for shard in shards]))
        for site, scale in scales.items()
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

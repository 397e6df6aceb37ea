"""One pass over documents: what a model has at some sites, a row each sentence or token.

The model runs up to the deepest site and no further. Sentences are averaged where the model is, so only one vector per
sentence leaves the device.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, overload

import pyarrow as pa
import torch
from tqdm.auto import tqdm

from probe.activations.documents import Document, Unit, documents_of
from probe.activations.index import index_table
from probe.activations.outliers import OutlierReport, Scale, measure
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
    """A model's activations: the mean over each sentence's tokens, or each token's own.

    A trace is read with its prompt, but only what was emitted has rows. A sentence without tokens of its own (it lies
    inside a token that began before it) has none.

    Args:
        model: who reads; usually, but not necessarily, who wrote the traces.
        what: traces, or several texts, sequences of token ids or documents; see `documents_of`.
        sites: where; all are read in the same pass. What a token has at a site is flattened to one vector.
        unit: ``sentence``: a row is the mean of a sentence (or other span). ``token``: a row is a token of one; these
            are many, so a folder is needed, and a shard takes the memory of its tokens' vectors.
        folder: the result is streamed there, in shards; a later call with the same arguments makes only those that are
            missing or damaged. The weights are known by the model's path alone.
        dtype: what rows are kept in; by default the model's.
        batch_tokens: how many tokens, padding included, one forward pass may hold (a longer document goes alone).
        shard_traces: how many traces, or other documents, make a shard: the work that a kill can lose.
        outliers: a token whose norm is above this multiple of the median is left out of its sentence's mean; where
            there is nothing else, or a row is a token, the row stays and the store flags it. None: none is left out.
        progress: show a bar.

    Returns:
        Sentences: their vectors, in memory (``ActivationStore.open(folder)`` has them on disk). Tokens: the store.

    Raises:
        ProbeError: if the model lacks a site or has no vector for each token there, ``folder`` holds another harvest,
            or an argument is no good.
    """
    names = [str(site) for site in as_sites(sites)]
    _check(model, names, unit, folder, batch_tokens, shard_traces, outliers)
    kept = model.dtype if dtype is None else as_dtype(dtype)
    documents = documents_of(model, what)
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
    store = ActivationStore(files)  # each file was checked or written just now
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
    """Refuse before any work is done."""
    if not sites:
        raise ProbeError("there is nothing to harvest; give at least one site")
    for site in sites:
        place(model.hf, site)
        if not Site.parse(site).by_token:
            raise no_vectors(site)
    if unit not in ("sentence", "token"):
        raise ProbeError(f"unknown unit '{unit}'; use sentence or token")
    if unit == "token" and folder is None:
        raise ProbeError("a harvest of tokens is too large for memory; say in which folder it is to be kept")
    if min(batch_tokens, shard_traces) < 1:
        raise ProbeError(f"batch_tokens={batch_tokens} and shard_traces={shard_traces} must be at least 1")
    if outliers is not None and not 1 < outliers < float("inf"):
        raise ProbeError(
            f"outliers={outliers} is no multiple of the median norm; use one above 1, or None for no filter"
        )


def _sum_up(
    model: Model, documents: Sequence[Document], unit: Unit, scales: Mapping[str, Scale], shards: Sequence[Shard]
) -> tuple[pa.Table, dict[str, OutlierReport]]:
    """The index, and what was seen of each site's outliers."""
    alone = {site: torch.cat([shard.alone[site] for shard in shards]) for site in scales}
    index = index_table(model, documents, unit, alone)
    read = sum(len(document.ids) for document in documents if any(start < end for start, end in document.spans))
    return index, {
        site: OutlierReport.of(model, scale, read, torch.cat([shard.outliers[site] for shard in shards]))
        for site, scale in scales.items()
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

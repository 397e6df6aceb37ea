"""Harvest activations: one pass over documents gives a row for each sentence or token at each site.

The model runs only up to the deepest site. Sentences are averaged on its device, so only one vector for each sentence
leaves it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import pyarrow as pa
import torch
from tqdm.auto import tqdm

from probe.activations.documents import Document, Unit, documents_of
from probe.activations.index import index_table
from probe.activations.outliers import OutlierReport, SiteScale, measure
from probe.activations.passes import no_vectors
from probe.activations.pooling import Shard, make_shard
from probe.activations.sentences import SentenceActivations, pairs
from probe.activations.shards import MANIFEST, ShardFolder
from probe.activations.store import ActivationStore
from probe.engine import KeptFolder
from probe.errors import ProbeError
from probe.files import object_hash
from probe.hooks import as_sites
from probe.models import Model, Site, as_dtype, identity, place
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
            missing or damaged. None: keep the result in memory.
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
            as many tokens, ``folder`` holds the harvest of another model (by its weights), of other documents or
            settings, another process writes into it, or an argument is invalid.
    """
    names = [str(site) for site in as_sites(sites)]
    _check(model, names, unit, folder, batch_tokens, shard_traces, outliers)
    kept = model.dtype if dtype is None else as_dtype(dtype)
    documents = documents_of(model, what)
    model.check_ids(document.ids for document in documents)
    parts = [documents[i : i + shard_traces] for i in range(0, len(documents), shard_traces)] or [[]]
    run = _Harvest(model, documents, parts, names, unit, kept, outliers, batch_tokens, shard_traces, progress)
    if folder is None:
        scales = measure(model, documents, names, outliers)
        made = list(run.shards(scales))
        vectors = {site: torch.cat([shard.vectors[site] for shard in made]) for site in names}
        index, reports = _sum_up(model, documents, unit, scales, made)
        return SentenceActivations(vectors, pairs(index), index["text"].to_pylist(), model.name, reports)
    store = ActivationStore(run.into(Path(folder)))  # every file was checked or written
    return SentenceActivations.of(store) if unit == "sentence" else store


@dataclass(frozen=True)
class _Harvest:
    """One harvest: its documents in parts, one for each shard, and how they are read."""

    model: Model
    documents: Sequence[Document]
    parts: Sequence[Sequence[Document]]
    sites: Sequence[str]
    unit: Unit
    dtype: torch.dtype
    outliers: float | None
    batch_tokens: int
    shard_traces: int
    progress: bool

    def shards(self, scales: Mapping[str, SiteScale], files: ShardFolder | None = None) -> Iterator[Shard]:
        """Make the shards that the folder does not have."""
        name = f"activations of {self.model.name}"
        with tqdm(total=len(self.documents), desc=name, unit="doc", disable=not self.progress) as bar:
            for number, part in enumerate(self.parts):
                if files and files.done(number):
                    bar.update(len(part))
                    continue
                shard = make_shard(
                    self.model, part, number * self.shard_traces, scales, self.unit, self.dtype, self.batch_tokens, bar
                )
                if files:
                    files.write(number, shard)
                yield shard

    def into(self, folder: Path) -> ShardFolder:
        """Do what is missing in the folder."""
        home = KeptFolder(folder, self.key, MANIFEST, lambda: self._is_of(folder))
        files = ShardFolder.there(folder) if home.check() else None
        if files is not None and files.whole and not files.leftovers():
            return files
        with home:
            files = ShardFolder.begin(folder, self.about, len(self.parts))
            scales = files.scales
            if scales is None:
                scales = measure(self.model, self.documents, self.sites, self.outliers)
                files.keep_scales(scales)
            for _ in self.shards(scales, files):
                pass
            if not files.ended:
                files.end(*_sum_up(self.model, self.documents, self.unit, scales, list(files.shards())))
        return files

    @property
    def about(self) -> dict[str, Any]:
        """What the manifest says of the harvest."""
        config = self.model.config
        return {
            "model": self.model.name,
            "path": config.path,
            "revision": config.revision,
            "model_dtype": _name(self.model.dtype),
            "unit": self.unit,
            "dtype": _name(self.dtype),
            "outlier_multiple": self.outliers,
            "shard_traces": self.shard_traces,
        }

    @property
    def key(self) -> dict[str, Any]:
        """What the rows depend on; the prompt is part of the documents."""
        model = identity(self.model)
        del model["prompt"], model["end"]
        settings = {name: self.about[name] for name in ("unit", "dtype", "outlier_multiple", "shard_traces")}
        documents = object_hash([object_hash(vars(each)) for each in self.documents])
        return {"work": "harvest", "model": model, **settings, "sites": list(self.sites), "documents": documents}

    def _is_of(self, folder: Path) -> bool:
        """Whether a harvest of an earlier version, which knew a model by its path, is this one by its first rows."""
        files = ShardFolder.there(folder)
        key = {**self.about, "sites": self.sites, "documents": [object_hash(vars(each)) for each in self.documents]}
        if files is None or files.scales is None or files.manifest.get("key") != object_hash(key):
            return False
        first = next(((i, each) for i, each in enumerate(self.parts[0]) if each.spans), None)
        if first is None or not files.done(0):
            return False
        one = make_shard(self.model, [first[1]], first[0], files.scales, self.unit, self.dtype, self.batch_tokens, None)
        there = next(files.shards())
        most = 1e-3 if self.dtype == self.model.dtype == torch.float32 else 3e-2
        for site, rows in one.vectors.items():
            rows, kept = rows.float(), there.vectors[site][: len(rows)].float()
            if not (rows - kept).norm() <= most * rows.norm():
                return False
        return True


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

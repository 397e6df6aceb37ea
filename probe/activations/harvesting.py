"""Harvest activations: one pass over documents gives a row for each sentence or token at each site.

The model runs only up to the deepest site. Sentences are averaged on its device, so only one vector for each sentence
leaves it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

import pyarrow as pa
import torch

from probe.activations.documents import Document, Unit, documents_of
from probe.activations.index import index_table
from probe.activations.outliers import SAMPLE, OutlierReport, SiteScale, measure
from probe.activations.passes import no_vectors, tokens_at_once
from probe.activations.pooling import Shard, make_shard
from probe.activations.sentences import SentenceActivations, pairs
from probe.activations.shards import MANIFEST, ShardFolder
from probe.activations.store import ActivationStore
from probe.engine import KeptFolder
from probe.errors import ProbeError
from probe.files import object_hash
from probe.hooks import as_sites
from probe.models import Model, Site, as_dtype, halving, identity, place
from probe.progress import progress_bar
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
            of the spans. Tokens need a folder.
        folder: the result is streamed here in shards; a later call with the same arguments makes only shards that are
            missing or damaged. None: keep the result in memory.
        dtype: the dtype of the rows; None for the model's.
        batch_tokens: the maximum number of tokens in one forward pass, padding included (a longer document runs alone).
            Fewer are read at once where the model's budget is smaller, or memory runs out; the folder records how many.
        shard_traces: the maximum number of traces or other documents in a shard; an interrupted run loses at most one
            shard. A shard whose rows would take more than 512 MB has fewer.
        outliers: leave tokens whose norm exceeds this multiple of the median out of their sentence's mean. Rows that
            have only outliers stay, and the store flags them. None: keep all tokens.
        progress: show a progress bar.

    Returns:
        For sentences their vectors, in memory or read from the folder when they are used; the store for tokens.

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
    parts = _parts(documents, shard_traces, unit, len(names) * model.d_model * kept.itemsize)
    run = _Harvest(model, documents, parts, names, unit, kept, outliers, batch_tokens, shard_traces, progress)
    if folder is None:
        return run.in_memory()
    store = ActivationStore(run.into(Path(folder)))  # every file was checked or written
    return SentenceActivations.of(store) if unit == "sentence" else store


_SHARD = 2**29
"""The maximum size of a shard's rows in bytes, if it has several documents; a part of the key where it matters."""


def _parts(documents: Sequence[Document], most: int, unit: Unit, row_bytes: int) -> list[range]:
    """Divide documents into shards, by the settings and the documents alone.

    Args:
        most: the maximum number of documents in a shard.
        row_bytes: the size of a row at all sites.
    """
    parts, begin, rows = [], 0, 0
    for i, document in enumerate(documents):
        spans = document.spans
        own = sum(end - start for start, end in spans) if unit == "token" else len(spans)
        if i - begin == most or (i > begin and (rows + own) * row_bytes > _SHARD):
            parts.append(range(begin, i))
            begin, rows = i, 0
        rows += own
    return [*parts, range(begin, len(documents))]


@dataclass(frozen=True)
class _Harvest:
    """One harvest: its documents, which of them are in each shard, and how they are read."""

    model: Model
    documents: Sequence[Document]
    parts: Sequence[range]
    sites: Sequence[str]
    unit: Unit
    dtype: torch.dtype
    outliers: float | None
    batch_tokens: int
    shard_traces: int
    progress: bool

    def in_memory(self) -> SentenceActivations:
        """Read all documents, and keep their rows in memory."""
        scales = self._measured()
        n = sum(start < end for document in self.documents for start, end in document.spans)
        vectors = {site: torch.empty(n, scale.width, dtype=self.dtype) for site, scale in scales.items()}
        rest: list[Shard] = []
        done = 0

        def keep(_: int, shard: Shard) -> None:
            nonlocal done
            size = len(shard.alone[self.sites[0]])
            for site, rows in shard.vectors.items():
                vectors[site][done : done + size] = rows
            done += size
            rest.append(replace(shard, vectors={}))

        self._make(scales, self._tokens_at_once(scales), keep)
        index = pa.concat_tables(self._index(rest))
        reports = self._outliers(scales, rest)
        return SentenceActivations(vectors, pairs(index), index["text"].to_pylist(), self.model.name, reports)

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
                scales = self._measured()
                files.keep_scales(scales)
            at_once = self._tokens_at_once(scales)
            # As many as before an interruption, because in a small format padding changes the last digit.
            at_once = min(at_once, files.batch_tokens or at_once)
            self._make(scales, at_once, files.write, files)
            if not files.ended:
                files.end(self._index(files.shards()), self._outliers(scales, files.shards()))
        return files

    def _measured(self) -> dict[str, SiteScale]:
        def work(tokens: int) -> dict[str, SiteScale]:
            return measure(self.model, self.documents, self.sites, self.outliers, tokens)

        return halving(work, SAMPLE, device=self.model.device, what=f"harvesting activations of {self.model.name}")

    def _tokens_at_once(self, scales: Mapping[str, SiteScale]) -> int:
        return min(self.batch_tokens, tokens_at_once(self.model, [scale.width for scale in scales.values()]))

    def _make(
        self,
        scales: Mapping[str, SiteScale],
        at_once: int,
        keep: Callable[[int, Shard], None],
        files: ShardFolder | None = None,
    ) -> None:
        """Make the shards that the folder does not have, and hand each to ``keep`` with its number."""

        def make(tokens: int) -> Shard:
            nonlocal at_once
            at_once = tokens  # the shards after one that ran out of memory begin with what was enough
            if files is not None:
                files.keep_batch_tokens(tokens)
            own = self.documents[part.start : part.stop]
            return make_shard(self.model, own, part.start, scales, self.unit, self.dtype, tokens)

        name = f"activations of {self.model.name}"
        with progress_bar(total=len(self.documents), desc=name, unit="text", show=self.progress) as bar:
            for number, part in enumerate(self.parts):
                if files is None or not files.done(number):
                    keep(number, halving(make, at_once, device=self.model.device, what=f"harvesting {name}"))
                bar.update(len(part))

    def _index(self, shards: Iterable[Shard]) -> Iterator[pa.Table]:
        """Make the index, shard by shard."""
        for part, shard in zip(self.parts, shards, strict=True):
            yield index_table(self.model, self.documents[part.start : part.stop], part.start, self.unit, shard.alone)

    def _outliers(self, scales: Mapping[str, SiteScale], shards: Iterable[Shard]) -> dict[str, OutlierReport]:
        """Summarise the outliers at each site."""
        found = [shard.outliers for shard in shards]
        spans = ((len(document.ids), any(start < end for start, end in document.spans)) for document in self.documents)
        read = sum(length for length, has_rows in spans if has_rows)
        return {
            site: OutlierReport.of(self.model, scale, read, torch.cat([each[site] for each in found]))
            for site, scale in scales.items()
        }

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
        if any(len(part) < self.shard_traces for part in self.parts[:-1]):
            settings["shard_bytes"] = _SHARD
        return {"work": "harvest", "model": model, **settings, "sites": list(self.sites), "documents": documents}

    def _is_of(self, folder: Path) -> bool:
        """Whether a harvest of an earlier version, which knew a model by its path, is this one by its first rows."""
        files = ShardFolder.there(folder)
        key = {**self.about, "sites": self.sites, "documents": [object_hash(vars(each)) for each in self.documents]}
        if files is None or files.scales is None or files.manifest.get("key") != object_hash(key):
            return False
        first = next(((i, self.documents[i]) for i in self.parts[0] if self.documents[i].spans), None)
        if first is None or not files.done(0):
            return False
        one = make_shard(self.model, [first[1]], first[0], files.scales, self.unit, self.dtype, self.batch_tokens)
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


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

"""One vector per sentence and site, in memory or read from disk when it is used."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import pyarrow as pa
from jaxtyping import Float
from torch import Tensor

from probe.activations.outliers import OutlierReport
from probe.activations.rows import Rows, by_rows
from probe.activations.store import ActivationStore
from probe.errors import ProbeError


class StoredVectors(Mapping):
    """The vectors of each site of a store; each one is read from disk at every access and is not cached."""

    def __init__(self, rows: Mapping[str, Rows]) -> None:
        self.rows = dict(rows)

    def __getitem__(self, site: str) -> Float[Tensor, "sentence _"]:
        return self.rows[site].tensor()

    def __contains__(self, site: object) -> bool:
        return site in self.rows  # as a Mapping, it would read the site to find out

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


class SentenceActivations:
    """The mean activation over each sentence's tokens, at one or more sites.

    Args:
        vectors: per site (``"resid_post.2"``), ``[sentence, width]``. Those of a store are read whenever one is asked
            for; :meth:`rows` reads parts of them.
        index: for each row, the number of its trace (or other document) and of the sentence in it.
        texts: the text of each sentence.
        model_name: the model that was read.
        outliers: per site, a summary of the tokens left out of the means.

    Raises:
        ValueError: if vectors, index and texts differ in length.
    """

    def __init__(
        self,
        vectors: dict[str, Float[Tensor, "sentence _"]] | StoredVectors,
        index: Sequence[tuple[int, int]],
        texts: Sequence[str],
        model_name: str = "",
        outliers: Mapping[str, OutlierReport] | None = None,
    ) -> None:
        self.vectors = vectors
        self.index = list(index)
        self.texts = list(texts)
        self.model_name = model_name
        self.outliers = dict(outliers or {})
        if any(len(rows) != len(self.texts) for rows in (*map(self.rows, vectors), self.index)):
            raise ValueError("vectors, index and texts must have one row per sentence")

    @classmethod
    def load(cls, folder: str | Path) -> "SentenceActivations":
        """Read what a harvest left in ``folder``.

        Raises:
            ProbeError: if the harvest is missing, unfinished, damaged or one of tokens.
        """
        return cls.of(ActivationStore.open(folder))

    @classmethod
    def of(cls, store: ActivationStore) -> "SentenceActivations":
        """Read the index and the texts of a store of sentences; vectors are read when they are used.

        Raises:
            ProbeError: if it is a store of tokens.
        """
        if store.unit != "sentence":
            raise ProbeError(f"{store.folder} holds {store.unit}s, not sentences; use ActivationStore.open")
        vectors = StoredVectors({site: store[site] for site in store.sites})
        index = store.index
        return cls(vectors, pairs(index), index["text"].to_pylist(), store.model_name, store.outliers)

    def rows(self, site: str) -> Rows:
        """The vectors of a site, read only where they are sliced or indexed.

        Raises:
            KeyError: if the site was not harvested.
        """
        if isinstance(self.vectors, StoredVectors):
            return self.vectors.rows[site]
        return Rows([self.vectors[site]])

    def first(self, n: int) -> "SentenceActivations":
        """Keep the sentences of the first ``n`` documents."""
        rows = [row for row, (document, _) in enumerate(self.index) if document < n]
        index, texts = [self.index[row] for row in rows], [self.texts[row] for row in rows]
        kept = (self.model_name, self.outliers)
        if rows == list(range(len(rows))):  # as a harvest orders them, and then nothing is read
            return SentenceActivations(
                StoredVectors({site: self.rows(site).first(len(rows)) for site in self.sites}), index, texts, *kept
            )
        return SentenceActivations({site: self.rows(site)[rows] for site in self.sites}, index, texts, *kept)

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.vectors)

    def __len__(self) -> int:
        """The number of sentences."""
        return len(self.texts)

    def __repr__(self) -> str:
        width = next((self.rows(site).shape[1] for site in self.sites), 0)
        return f"SentenceActivations({len(self)} sentences at {', '.join(self.sites)}, width {width})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(site)}</td><td>{self._median_norm(site):.3g}</td>"
            f"<td>{escape(str(self.outliers.get(site, '')))}</td></tr>"
            for site in self.sites
            if len(self)
        )
        head = "<tr><th>site</th><th>median norm</th><th>outlier tokens</th></tr>"
        return f"<div><b>{escape(repr(self))}</b><table>{head}{rows}</table></div>"

    def _median_norm(self, site: str) -> float:
        return by_rows(lambda some: some.float().norm(dim=1), self.rows(site)).median().item()


def pairs(index: pa.Table) -> list[tuple[int, int]]:
    """The document and the span of each row."""
    return list(zip(index["document"].to_pylist(), index["span"].to_pylist(), strict=True))

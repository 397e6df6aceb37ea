"""One vector per sentence and site, in memory."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import pyarrow as pa
from jaxtyping import Float
from torch import Tensor

from probe.activations.outliers import OutlierReport
from probe.activations.store import ActivationStore
from probe.errors import ProbeError


class SentenceActivations:
    """The mean activation over each sentence's tokens, at one or more sites.

    Args:
        vectors: per site (``"resid_post.2"``), ``[sentence, width]``.
        index: for each row, the number of its trace (or other document) and of the sentence in it.
        texts: the text of each sentence.
        model_name: the model that was read.
        outliers: per site, a summary of the tokens left out of the means.

    Raises:
        ValueError: if vectors, index and texts differ in length.
    """

    def __init__(
        self,
        vectors: dict[str, Float[Tensor, "sentence _"]],
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
        if any(len(rows) != len(self.texts) for rows in (*vectors.values(), self.index)):
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
        """Read a store of sentences into memory.

        Raises:
            ProbeError: if it is a store of tokens.
        """
        if store.unit != "sentence":
            raise ProbeError(f"{store.folder} holds {store.unit}s, not sentences; use ActivationStore.open")
        vectors = {site: store[site].tensor() for site in store.sites}
        return cls(vectors, pairs(store.index), store.index["text"].to_pylist(), store.model_name, store.outliers)

    def first(self, n: int) -> "SentenceActivations":
        """Keep the sentences of the first ``n`` documents."""
        rows = [row for row, (document, _) in enumerate(self.index) if document < n]
        vectors = {site: each[rows] for site, each in self.vectors.items()}
        index, texts = [self.index[row] for row in rows], [self.texts[row] for row in rows]
        return SentenceActivations(vectors, index, texts, self.model_name, self.outliers)

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.vectors)

    def __len__(self) -> int:
        """The number of sentences."""
        return len(self.texts)

    def __repr__(self) -> str:
        width = next((vectors.shape[1] for vectors in self.vectors.values()), 0)
        return f"SentenceActivations({len(self)} sentences at {', '.join(self.sites)}, width {width})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(site)}</td><td>{vectors.float().norm(dim=1).median().item():.3g}</td>"
            f"<td>{escape(str(self.outliers.get(site, '')))}</td></tr>"
            for site, vectors in self.vectors.items()
            if len(self)
        )
        head = "<tr><th>site</th><th>median norm</th><th>outlier tokens</th></tr>"
        return f"<div><b>{escape(repr(self))}</b><table>{head}{rows}</table></div>"


def pairs(index: pa.Table) -> list[tuple[int, int]]:
    """The document and the span of each row."""
    return list(zip(index["document"].to_pylist(), index["span"].to_pylist(), strict=True))

"""One vector per sentence and site."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from probe.activations.shards import ShardFolder


class SentenceActivations:
    """The mean activation over each sentence's tokens, at one or more sites.

    Args:
        vectors: per site (``"resid_post.2"``), ``[sentence, d_model]``.
        index: which trace and which of its sentences each row is.
        texts: the text of each sentence.
        model_name: whose activations they are.

    Raises:
        ValueError: if the three differ in length.
    """

    def __init__(
        self,
        vectors: dict[str, Float[Tensor, "sentence d_model"]],
        index: Sequence[tuple[int, int]],
        texts: Sequence[str],
        model_name: str = "",
    ) -> None:
        self.vectors = vectors
        self.index = list(index)
        self.texts = list(texts)
        self.model_name = model_name
        if any(len(rows) != len(self.texts) for rows in (*vectors.values(), self.index)):
            raise ValueError("vectors, index and texts must have one row per sentence")

    @classmethod
    def load(cls, folder: str | Path) -> "SentenceActivations":
        """Read what a harvest left in ``folder``.

        Raises:
            ProbeError: if the harvest is not there, has not ended, or a file of it is damaged.
        """
        store = ShardFolder.open(Path(folder))
        shards = [store.read(number) for number in range(store.n_shards)]
        rows = store.index().to_pylist()
        vectors = {site: torch.cat([shard[site] for shard in shards]) for site in store.sites}
        index = [(row["trace"], row["sentence"]) for row in rows]
        return cls(vectors, index, [row["text"] for row in rows], store.manifest["model"])

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
        medians = {
            site: vectors.float().norm(dim=1).quantile(0.5).item()
            for site, vectors in self.vectors.items()
            if len(self)
        }
        rows = "".join(f"<tr><td>{escape(site)}</td><td>{median:.3g}</td></tr>" for site, median in medians.items())
        return f"<div><b>{escape(repr(self))}</b><table><tr><th>site</th><th>median norm</th></tr>{rows}</table></div>"

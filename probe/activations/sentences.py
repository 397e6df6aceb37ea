"""One vector per sentence and site."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Self

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

    Raises:
        ValueError: if the three differ in length.
    """

    def __init__(self, vectors: dict[str, Float[Tensor, "sentence d_model"]], index: Sequence[tuple[int, int]], texts: Sequence[str]) -> None:
        self.vectors = vectors
        self.index = list(index)
        self.texts = list(texts)
        if any(len(rows) != len(self.texts) for rows in (*vectors.values(), self.index)):
            raise ValueError("vectors, index and texts must have one row per sentence")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what a harvest left in ``folder``.

        Raises:
            ProbeError: if the harvest is not there, has not ended, or a file of it is damaged.
        """
        store = ShardFolder.open(Path(folder))
        shards = [store.read(number) for number in range(store.n_shards)]
        rows = store.index().to_pylist()
        vectors = {site: torch.cat([shard[site] for shard in shards]) for site in store.sites}
        return cls(vectors, [(row["trace"], row["sentence"]) for row in rows], [row["text"] for row in rows])

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
        norms = "".join(
            f"<tr><td>{escape(site)}</td><td>{vectors.float().norm(dim=1).median().item() if len(self) else float('nan'):.3g}</td></tr>"
            for site, vectors in self.vectors.items()
        )
        return f"<div><b>{escape(repr(self))}</b><table><tr><th>site</th><th>median norm</th></tr>{norms}</table></div>"

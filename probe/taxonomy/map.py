"""A map of sentences: their vectors in two dimensions, for display only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.activations import Rows
from probe.errors import ProbeError
from probe.taxonomy.sae.normaliser import Normaliser

MapMethod: TypeAlias = Literal["pca", "umap"]

#: The fewest sentences for which the neighbourhoods of umap mean something.
_LEAST = 10


@dataclass(frozen=True, eq=False)
class BehaviourMap:
    """Sentences in two dimensions, made by :func:`behaviour_map`."""

    method: MapMethod
    rows: Int[np.ndarray, " point"]
    """The indices of the sentences, in ascending order."""
    points: Float[np.ndarray, "point 2"]
    behaviours: Int[np.ndarray, " point"]
    explained: float | None
    """The share of the sentences' variance in the two dimensions; None for ``umap``, which has no such share."""

    def record(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return the map as a JSON-able record, the input of ``map_figure`` and the discovery page.

        Args:
            texts: the texts of all the sentences given to :func:`behaviour_map`.
        """
        rows = zip(self.points.round(4).tolist(), self.behaviours.tolist(), self.rows.tolist(), strict=True)
        points = [[*point, behaviour, texts[row]] for point, behaviour, row in rows]
        return {"method": self.method, "explained": self.explained, "points": points}


def behaviour_map(
    vectors: Float[Tensor, "sentence d_model"] | Rows,
    behaviours: Sequence[int | None],
    method: MapMethod = "pca",
    *,
    normaliser: Normaliser | None = None,
    seed: int = 0,
    sample: int = 2000,
) -> BehaviourMap:
    """Place sentences on a two-dimensional map.

    Args:
        vectors: activations that went through the taxonomy's normaliser, or raw ones with the ``normaliser``. Those of
            a store are read only where they are on the map.
        behaviours: the behaviour of each sentence; sentences without one (None) are left out.
        method: ``"pca"`` (principal components: faithful distances in the two dimensions shown) or ``"umap"``
            (McInnes et al. 2018, arXiv 1802.03426, by cosine: it keeps neighbourhoods but not distances).
        normaliser: applied to the vectors on the map; None takes them as they are.
        seed: seeds the sample and the method.
        sample: the maximum number of sentences on the map; more are sampled at random.

    Raises:
        ProbeError: if vectors and behaviours differ in number, a vector on the map is not finite, the method is
            unknown, or ``umap-learn`` is not installed.
    """
    if method not in ("pca", "umap"):
        raise ProbeError(f"there is no map by '{method}'; use pca or umap")
    if len(vectors) != len(behaviours):
        raise ProbeError(
            f"{len(vectors)} vectors and {len(behaviours)} behaviours do not match; give one behaviour for each vector"
        )
    rows = np.asarray([i for i, behaviour in enumerate(behaviours) if behaviour is not None], dtype=int)
    if len(rows) > sample:
        rows = np.sort(np.random.default_rng(seed).choice(rows, sample, replace=False))
    chosen = vectors[torch.from_numpy(rows)]
    x = (chosen.float() if normaliser is None else normaliser(chosen)).cpu().numpy()
    if bad := int((~np.isfinite(x)).any(1).sum()):
        raise ProbeError(f"{bad} of {len(x)} vectors are not finite numbers; give those sentences None as behaviour")
    points, explained = _pca(x, seed) if method == "pca" else (_umap(x, seed), None)
    return BehaviourMap(method, rows, points, np.asarray([behaviours[row] for row in rows], dtype=int), explained)


def _pca(x: Float[np.ndarray, "point d_model"], seed: int) -> tuple[Float[np.ndarray, "point 2"], float | None]:
    from sklearn.decomposition import PCA

    points = np.zeros((len(x), 2))
    # Without variance (one sentence, or identical ones) every point lies in the middle.
    if len(x) < 2 or not np.ptp(x, axis=0).any():
        return points, None
    pca = PCA(n_components=min(2, *x.shape), random_state=seed).fit(x)
    points[:, : pca.n_components_] = pca.transform(x)
    return points, float(pca.explained_variance_ratio_.sum())


def _umap(x: Float[np.ndarray, "point d_model"], seed: int) -> Float[np.ndarray, "point 2"]:
    try:
        from umap import UMAP  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ProbeError("a map by umap needs umap-learn; run `pip install probe-interp[map]`, or use pca") from None
    if len(x) < _LEAST:
        raise ProbeError(f"{len(x)} sentences are too few for a map by umap, which needs {_LEAST}; use pca")
    # One job: with more, the map would depend on the order in which threads finish, and umap would warn.
    umap = UMAP(n_neighbors=min(15, len(x) - 1), metric="cosine", random_state=seed, n_jobs=1)
    return np.asarray(umap.fit_transform(x), dtype=float)

"""Baselines that assign each sentence to one centre: spherical k-means, a Gaussian mixture, k-means, linkage."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from probe.taxonomy.families.base import Family, VectorsError, check_distinct, subsample, unit
from probe.taxonomy.sae.starts import spherical_centres

_AT_ONCE = 4096
"""The number of sentences whose distances from all Gaussians are held at once."""

if TYPE_CHECKING:
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture


class SphericalKMeans(Family):
    """k-means on the unit sphere (Dhillon and Modha 2001): each sentence goes to the centre with the largest cosine.

    A centre is the sum of its sentences, scaled to length one. Of several starts by k-means++, the one with the largest
    mean cosine is kept. Iterations stop when no sentence changes its centre, so the result is a fixed point. A centre
    that loses all its sentences moves to the sentence with the smallest cosine. Scores are cosines.

    Args:
        n_behaviours: the number of behaviours to find.
        sample: the maximum number of sentences that the centres follow from; of more, random ones.
        random_state: seeds the sample and the starts.

    Attributes:
        objective_: the mean cosine of the training sentences with their centres.
    """

    objective_: float

    def __init__(self, n_behaviours: int = 8, *, sample: int = 20_000, random_state: int = 0) -> None:
        super().__init__(n_behaviours, random_state=random_state)
        self.sample = sample

    def _check_settings(self) -> None:
        _check_sample(self.sample, self.n_behaviours)

    def _learn(self, x: Float[np.ndarray, "sentence d_model"]) -> None:
        vectors = torch.from_numpy(np.ascontiguousarray(x))
        self.directions_ = spherical_centres(
            vectors, (self.n_behaviours,), self.random_state, rounds=300, sample=self.sample
        )
        self.objective_ = float((vectors @ self.directions_.T).max(1).values.mean())


class PCAKMeans(Family):
    """k-means on the first principal components.

    Scores are ``p·c − |c|²/2`` for a sentence ``p`` and a centre ``c``, both in the components: largest where the
    distance is smallest. A direction is that of the centre, mapped back to the model's width.

    Args:
        n_behaviours: the number of behaviours to find.
        n_components: the maximum number of principal components.
        random_state: seeds the starts.
    """

    _pca: "PCA"
    _centres: Float[np.ndarray, "behaviour component"]

    def __init__(self, n_behaviours: int = 8, *, n_components: int = 16, random_state: int = 0) -> None:
        super().__init__(n_behaviours, random_state=random_state)
        self.n_components = n_components

    def _check_settings(self) -> None:
        _check_components(self.n_components)

    def _learn(self, x: Float[np.ndarray, "sentence d_model"]) -> None:
        from sklearn.cluster import KMeans

        self._pca = _fit_pca(x, self.n_components, self.random_state)
        # The stubs of scikit-learn declare n_init only as text.
        kmeans = KMeans(self.n_behaviours, n_init=8, random_state=self.random_state)  # pyright: ignore[reportArgumentType]
        self._centres = kmeans.fit(self._pca.transform(x)).cluster_centers_
        self.directions_ = unit(self._pca.inverse_transform(self._centres))

    def _scores(self, x: Float[np.ndarray, "sentence d_model"]) -> Float[np.ndarray, "sentence behaviour"]:
        return self._pca.transform(x) @ self._centres.T - np.square(self._centres).sum(1) / 2


class GaussianMixtureBehaviours(Family):
    """A mixture of Gaussians with diagonal covariance on the first principal components.

    Scores are the logarithm of a component's weight times its density. A direction is that of a component's mean,
    mapped back to the model's width. A component that is nowhere the likeliest is a behaviour without sentences.

    Args:
        n_behaviours: the number of behaviours to find.
        n_components: the maximum number of principal components.
        random_state: seeds the starts.
    """

    _pca: "PCA"
    _mixture: "GaussianMixture"

    def __init__(self, n_behaviours: int = 8, *, n_components: int = 16, random_state: int = 0) -> None:
        super().__init__(n_behaviours, random_state=random_state)
        self.n_components = n_components

    def _check_settings(self) -> None:
        _check_components(self.n_components)

    def _learn(self, x: Float[np.ndarray, "sentence d_model"]) -> None:
        from sklearn.mixture import GaussianMixture

        self._pca = _fit_pca(x, self.n_components, self.random_state)
        points = self._pca.transform(x).astype(np.float64)
        # A share of the mean variance keeps a component from collapsing onto identical sentences.
        floor = max(1e-3 * points.var(0).mean(), 1e-12)
        self._mixture = GaussianMixture(
            self.n_behaviours,
            covariance_type="diag",
            reg_covar=floor,
            n_init=4,
            max_iter=500,
            random_state=self.random_state,
        ).fit(points)
        self.directions_ = unit(self._pca.inverse_transform(self._mixture.means_))

    def _scores(self, x: Float[np.ndarray, "sentence d_model"]) -> Float[np.ndarray, "sentence behaviour"]:
        points = self._pca.transform(x).astype(np.float64)
        fitted = self._mixture
        means, variances, weights = map(np.asarray, (fitted.means_, fitted.covariances_, fitted.weights_))
        scores = np.empty((len(points), len(means)), dtype=np.float32)
        for start in range(0, len(points), _AT_ONCE):
            some = points[start : start + _AT_ONCE, None]
            distances = np.square(some - means) / variances + np.log(2 * np.pi * variances)
            scores[start : start + _AT_ONCE] = np.log(weights) - distances.sum(2) / 2
        return scores


class Agglomerative(Family):
    """Average linkage by cosine distance on a sample of sentences; every sentence then goes to the nearest centre.

    Scores are cosines with the centres, the means of the linked sentences scaled to length one. A centre that is
    nowhere the nearest is a behaviour without sentences. Average linkage separates unusual sentences, so some
    behaviours have very few.

    Args:
        n_behaviours: the number of behaviours to find.
        sample: the maximum number of sentences that are linked; memory grows with its square.
        random_state: seeds the sample.
    """

    def __init__(self, n_behaviours: int = 8, *, sample: int = 2000, random_state: int = 0) -> None:
        super().__init__(n_behaviours, random_state=random_state)
        self.sample = sample

    def _check_settings(self) -> None:
        _check_sample(self.sample, self.n_behaviours)

    def _learn(self, x: Float[np.ndarray, "sentence d_model"]) -> None:
        from sklearn.cluster import AgglomerativeClustering
        from sklearn.metrics.pairwise import cosine_distances

        own = x[subsample(len(x), self.sample, self.random_state)]
        check_distinct(own, self.n_behaviours)
        if self.n_behaviours == 1:
            labels = np.zeros(len(own), dtype=np.int64)
        else:
            # Precomputed distances: scikit-learn refuses the zero vector of a sentence equal to the mean.
            linkage = AgglomerativeClustering(self.n_behaviours, metric="precomputed", linkage="average")
            labels = linkage.fit_predict(cosine_distances(own))
        self.directions_ = unit(np.stack([own[labels == i].mean(0) for i in range(self.n_behaviours)]))


def _check_sample(sample: int, n_behaviours: int) -> None:
    if sample < n_behaviours:
        raise VectorsError(f"sample is {sample}; take at least as many sentences as behaviours")


def _check_components(n_components: int) -> None:
    if n_components < 1:
        raise VectorsError(f"n_components is {n_components}; at least one principal component is needed")


def _fit_pca(x: Float[np.ndarray, "sentence d_model"], n_components: int, seed: int) -> "PCA":
    from sklearn.decomposition import PCA

    return PCA(min(n_components, *x.shape), random_state=seed).fit(x)

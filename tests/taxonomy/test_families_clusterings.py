"""What each of the clusterings is, against scikit-learn and by hand."""

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from probe.errors import ProbeError
from probe.taxonomy.families import Agglomerative, GaussianMixtureBehaviours, PCAKMeans, SphericalKMeans


def angles(*degrees: float) -> np.ndarray:
    radians = np.deg2rad(np.array(degrees))
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def noise(n: int, width: int = 8, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Five tight groups around directions at right angles, and which group each belongs to."""
    kind = np.arange(300) % 5
    x = np.eye(8)[kind] + 0.1 * np.random.default_rng(0).standard_normal((300, 8))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), kind


def test_spherical_kmeans_on_a_circle() -> None:
    x = angles(-10, 0, 10, 80, 90, 100, 180)
    family = SphericalKMeans(3).fit(x)
    groups = {frozenset(np.flatnonzero(family.labels_ == i).tolist()) for i in range(3)}
    assert groups == {frozenset({0, 1, 2}), frozenset({3, 4, 5}), frozenset({6})}
    told = {tuple(np.round(row, 5) + 0.0) for row in family.directions_.numpy()}
    assert told == {(1, 0), (0, 1), (-1, 0)}
    assert family.objective_ == pytest.approx((4 * np.cos(np.deg2rad(10)) + 3) / 7, abs=1e-6)
    assert family.scores(angles(45)).max() == pytest.approx(np.sqrt(0.5), abs=1e-6)


def test_centres_are_of_length_one_and_not_means() -> None:
    """By the mean's length the wide group would lose the sentence between; by cosine it keeps it."""
    x = angles(-60, 60, 118, 119, 120)
    assert SphericalKMeans(2).fit(x).labels_.tolist() in ([0, 1, 1, 1, 1], [1, 0, 0, 0, 0])


def test_spherical_kmeans_ends_at_a_fixed_point() -> None:
    x = noise(500)
    family = SphericalKMeans(7).fit(x)
    centres = family.directions_.numpy()
    assert np.array_equal(family.labels_, (x @ centres.T).argmax(1))
    sums = np.stack([x[family.labels_ == i].sum(0) for i in range(7)])
    np.testing.assert_allclose(centres, sums / np.linalg.norm(sums, axis=1, keepdims=True), atol=1e-5)
    assert np.bincount(family.labels_, minlength=7).min() > 0


def test_spherical_kmeans_agrees_with_kmeans_where_both_must(blobs) -> None:
    x, kind = blobs
    ours = SphericalKMeans(5).fit(x)
    theirs = KMeans(5, n_init=4, random_state=0).fit(x)
    assert adjusted_rand_score(ours.labels_, theirs.labels_) == 1
    assert adjusted_rand_score(ours.labels_, kind) == 1
    centres = theirs.cluster_centers_ / np.linalg.norm(theirs.cluster_centers_, axis=1, keepdims=True)
    np.testing.assert_allclose((ours.directions_.numpy() @ centres.T).max(1), 1, atol=1e-6)


def test_pca_kmeans_is_kmeans_on_components() -> None:
    x, other = noise(400), noise(100, seed=1)
    ours = PCAKMeans(6, n_components=3).fit(x)
    pca = PCA(3, random_state=0).fit(x)
    theirs = KMeans(6, n_init=8, random_state=0).fit(pca.transform(x))
    assert np.array_equal(ours.labels_, theirs.labels_)
    assert np.array_equal(ours.predict(other), theirs.predict(pca.transform(other)))
    assert PCAKMeans(3, n_components=100).fit(x[:6]).directions_.shape == (3, 8)


def test_mixture_is_scikit_learns_on_components(blobs) -> None:
    x, kind = blobs
    ours = GaussianMixtureBehaviours(5, n_components=4).fit(x)
    points = PCA(4, random_state=0).fit(x).transform(x).astype(np.float64)
    theirs = GaussianMixture(
        5, covariance_type="diag", reg_covar=1e-3 * points.var(0).mean(), n_init=4, max_iter=500, random_state=0
    ).fit(points)
    assert np.array_equal(ours.labels_, theirs.predict(points))
    assert adjusted_rand_score(ours.labels_, kind) == 1
    scores = ours.scores(x).astype(np.float64)
    np.testing.assert_allclose(np.logaddexp.reduce(scores, axis=1), theirs.score_samples(points), rtol=1e-4, atol=1e-3)


def test_mixture_tells_apart_by_spread() -> None:
    """One tight group inside a wide one: no centre separates them, a density does."""
    rng = np.random.default_rng(0)
    x = np.concatenate([0.02 * rng.standard_normal((300, 8)), rng.standard_normal((300, 8))]).astype(np.float32)
    true = np.repeat([0, 1], 300)
    assert adjusted_rand_score(true, GaussianMixtureBehaviours(2).fit(x).labels_) > 0.95
    assert adjusted_rand_score(true, PCAKMeans(2).fit(x).labels_) < 0.5


def test_linkage_is_scikit_learns(blobs) -> None:
    x, kind = blobs
    theirs = AgglomerativeClustering(5, metric="cosine", linkage="average").fit_predict(x)
    ours = Agglomerative(5).fit(x)
    assert adjusted_rand_score(ours.labels_, theirs) == 1
    sampled = Agglomerative(5, sample=40).fit(x)
    assert adjusted_rand_score(sampled.labels_, kind) == 1, "the sentences that were not linked go to a centre"
    assert not torch.equal(sampled.directions_, ours.directions_)


@pytest.mark.parametrize(
    ("family", "words"),
    [
        (PCAKMeans(3, n_components=0), "n_components is 0"),
        (GaussianMixtureBehaviours(3, n_components=-1), "n_components is -1"),
        (Agglomerative(30, sample=20), "sample is 20"),
    ],
)
def test_settings_that_make_no_sense(family, words: str) -> None:
    with pytest.raises(ProbeError, match=words):
        family.fit(noise(50))

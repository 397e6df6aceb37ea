import sys
from inspect import unwrap
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from probe.errors import ProbeError
from probe.taxonomy.map import behaviour_map


@pytest.fixture
def sentences() -> tuple[torch.Tensor, list[int | None]]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(60, 8, generator=generator), [None if i % 10 == 9 else i % 3 for i in range(60)]


def test_pca_is_that_of_the_singular_value_decomposition(sentences):
    x, behaviours = sentences
    found = behaviour_map(x, behaviours)
    kept = [i for i, behaviour in enumerate(behaviours) if behaviour is not None]
    assert found.rows.tolist() == kept
    assert found.behaviours.tolist() == [behaviours[i] for i in kept]
    centred = (x[kept] - x[kept].mean(0)).numpy()
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    projected = centred @ directions[:2].T
    signs = np.sign((found.points * projected).sum(0))
    np.testing.assert_allclose(found.points, projected * signs, atol=1e-4)
    assert found.explained == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), abs=1e-5)


def test_a_sample_is_drawn_by_its_seed(sentences):
    one, same, other = (behaviour_map(*sentences, seed=seed, sample=20) for seed in (0, 0, 1))
    assert len(set(one.rows.tolist())) == 20
    assert (one.rows == same.rows).all()
    assert (one.points == same.points).all()
    assert (one.rows != other.rows).any()
    assert all(sentences[1][i] is not None for i in one.rows)


def test_record(sentences):
    found = behaviour_map(*sentences, sample=5)
    record = found.record([f"sentence {i}" for i in range(60)])
    assert record["method"] == "pca"
    for point, row, xy in zip(record["points"], found.rows, found.points, strict=True):
        assert point[:2] == pytest.approx(xy, abs=1e-4)
        assert point[2:] == [sentences[1][row], f"sentence {row}"]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_little(n):
    found = behaviour_map(torch.arange(4.0 * n).reshape(n, 4), [0] * n)
    assert found.points.shape == (n, 2)
    assert np.isfinite(found.points).all()
    assert behaviour_map(torch.ones(3, 4), [0, None, 1]).points.tolist() == [[0, 0], [0, 0]], "all alike"


def test_bad_input(sentences):
    x, behaviours = sentences
    with pytest.raises(ProbeError, match="use pca or umap"):
        unwrap(behaviour_map)(x, behaviours, "tsne")  # as it is for users, whose calls are not type-checked
    with pytest.raises(ProbeError, match="60 vectors and 2 behaviours"):
        behaviour_map(x, [0, 1])
    x[:2] = float("nan")
    with pytest.raises(ProbeError, match="2 of 54 vectors are not finite"):
        behaviour_map(x, behaviours)
    behaviours[0] = behaviours[1] = None
    assert len(behaviour_map(x, behaviours).rows) == 52


def test_umap_that_is_not_installed(sentences, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ProbeError, match=r"probe-interp\[map\]"):
        behaviour_map(*sentences, method="umap")


def test_umap_is_given_its_seed(sentences, monkeypatch):
    class UMAP:
        def __init__(self, **settings):
            self.settings = settings

        def fit_transform(self, x):
            return np.full((len(x), 2), self.settings["random_state"], dtype=np.float32)

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=UMAP))
    found = behaviour_map(*sentences, method="umap", seed=4)
    assert found.method == "umap"
    assert found.explained is None
    assert (found.points == 4).all()
    with pytest.raises(ProbeError, match="3 sentences are too few"):
        behaviour_map(sentences[0][:3], [0, 1, 2], method="umap")

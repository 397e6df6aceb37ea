"""The contract that all families keep."""

import re
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import adjusted_mutual_info_score

from probe.errors import ProbeError
from probe.taxonomy import Normaliser
from probe.taxonomy.families import FAMILIES, Family, make_family

SAES = ("batch-topk", "jumprelu", "delimiter")


@pytest.fixture(scope="module")
def data(planted):
    """Training vectors, other vectors and the true behaviours of each."""
    train, other = planted(600, 0), planted(300, 1)
    normaliser = Normaliser.fit(train.vectors["resid_post.1"], 10.0)
    kinds = [[text.split()[0] for text in part.texts] for part in (train, other)]
    return normaliser(train.vectors["resid_post.1"]), normaliser(other.vectors["resid_post.1"]), *kinds


def quick(name: str, n_behaviours: int = 6, random_state: int = 0) -> Family:
    family = make_family(name, n_behaviours, random_state)
    return family.set_params(steps=60) if name in SAES else family


@pytest.fixture(scope="module")
def fitted(data):
    return cache(lambda name: quick(name).fit(data[0]))


@pytest.mark.parametrize("name", FAMILIES)
def test_planted_behaviours_are_found(name: str, data, fitted) -> None:
    _, other, kinds, other_kinds = data
    family = fitted(name)
    assert adjusted_mutual_info_score(kinds, family.labels_) > 0.95
    assert adjusted_mutual_info_score(other_kinds, family.predict(other)) > 0.95


@pytest.mark.parametrize("name", FAMILIES)
def test_what_fitting_learns(name: str, data, fitted) -> None:
    x, other, kinds, _ = data
    family = fitted(name)
    assert family.n_features_in_ == 32
    assert family.labels_.shape == (600,)
    assert family.labels_.dtype == np.int64
    assert family.directions_.shape == (6, 32)
    assert family.directions_.dtype == torch.float32
    torch.testing.assert_close(family.directions_.norm(dim=1), torch.ones(6))
    assert np.array_equal(family.predict(x), family.labels_)
    scores = family.scores(other)
    assert scores.shape == (300, 6)
    assert scores.dtype == np.float32
    assert np.array_equal(scores.argmax(1), family.predict(other))
    # Each direction is that of the sentences it stands for: rows and columns are in the same order.
    means = torch.stack([x[torch.from_numpy(family.labels_ == i)].mean(0) for i in range(6)])
    assert (family.directions_ * torch.nn.functional.normalize(means, dim=1)).sum(1).min() > 0.95
    assert len(set(kinds)) == len(set(family.labels_.tolist()))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_seed_decides_and_nothing_else(name: str, data, fitted) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    # Python's own generator is not looked at: the type checker that runs under test draws from it.
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    again = quick(name).fit(data[0])
    assert torch.equal(again.directions_, fitted(name).directions_)
    assert np.array_equal(again.labels_, fitted(name).labels_)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


@pytest.mark.parametrize("name", FAMILIES)
def test_arrays_and_tensors_of_any_precision(name: str, data, fitted) -> None:
    x, family = data[1], fitted(name)
    scores = family.scores(x)
    for same in (x.numpy(), x.double(), x.numpy().astype(np.float64), x.clone().requires_grad_(), x.tolist()):
        assert np.array_equal(family.scores(same), scores)
    assert (family.predict(x.bfloat16()) == family.predict(x)).mean() > 0.98
    array = clone(family).fit(data[0].numpy())
    assert torch.equal(array.directions_, family.directions_)


@pytest.mark.parametrize("name", FAMILIES)
def test_scikit_learn_clones_and_sets(name: str) -> None:
    family = make_family(name, 5, 7)
    other = clone(family)
    assert other.get_params() == family.get_params()
    assert other.get_params()["n_behaviours"] == 5
    assert other.get_params()["random_state"] == 7
    assert family.set_params(n_behaviours=3).n_behaviours == 3


@pytest.mark.parametrize("name", FAMILIES)
def test_refusals(name: str, data, fitted) -> None:
    x = data[0][:20].clone()
    with pytest.raises(ProbeError, match="only 20 of 20 sentence vectors are distinct: too few for 21 behaviours"):
        make_family(name, 21).fit(x)
    with pytest.raises(ProbeError, match="only 3 of 20 sentence vectors are distinct: too few for 4 behaviours"):
        make_family(name, 4).fit(x[torch.arange(20) % 3])
    for wrong in (0, -2, 2.5, "4"):
        with pytest.raises(ProbeError, match=re.escape(f"n_behaviours is {wrong!r}")):
            make_family(name, 4).set_params(n_behaviours=wrong).fit(x)
    with pytest.raises(ProbeError, match="X has 7 features"):
        fitted(name).predict(x[:, :7])
    with pytest.raises(ProbeError, match="Expected 2D array"):
        make_family(name, 4).fit(x[0])
    x[3, 1], x[3, 2], x[8, 0] = torch.nan, torch.inf, -torch.inf
    with pytest.raises(ProbeError, match="2 of 20 sentence vectors hold NaN or infinite numbers") as refusal:
        make_family(name, 4).fit(x)
    assert "\n" not in str(refusal.value)
    with pytest.raises(ProbeError, match="2 of 20 sentence vectors"):
        fitted(name).predict(x)


@pytest.mark.parametrize("name", FAMILIES)
def test_as_many_behaviours_as_there_can_be(name: str, data) -> None:
    one = quick(name, 1).set_params(**({"k": 1} if name in ("batch-topk", "jumprelu") else {})).fit(data[0][:30])
    assert set(one.labels_) == {0}
    every = quick(name, 5).fit(data[0][:5])
    assert every.directions_.shape == (5, 32)
    assert torch.isfinite(every.directions_).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_sentence_that_equals_the_mean(name: str, data) -> None:
    x = data[0][:60].clone()
    x[7] = 0
    family = quick(name).fit(x)
    assert np.isfinite(family.scores(x)).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_quiet(name: str, data, capfd: pytest.CaptureFixture[str]) -> None:
    quick(name).fit(data[0][:100]).predict(data[1])
    assert capfd.readouterr() == ("", "")


def test_an_unknown_family_is_refused_with_the_nearest() -> None:
    with pytest.raises(ProbeError, match="unknown family 'jump-relu'; did you mean 'jumprelu'"):
        make_family("jump-relu", 4)

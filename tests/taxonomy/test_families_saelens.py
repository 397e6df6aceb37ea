"""The SAE families: what SAELens makes of them, and what is corrected."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sae_lens import SAE

from probe.errors import ProbeError
from probe.taxonomy import Normaliser
from probe.taxonomy.families import BatchTopKSAE, DelimiterSAE, JumpReLUSAE

KINDS = {"batch-topk": BatchTopKSAE, "jumprelu": JumpReLUSAE, "delimiter": DelimiterSAE}


@pytest.fixture(scope="module")
def vectors(planted) -> tuple[torch.Tensor, torch.Tensor]:
    """Training and other vectors, noisy enough that more than one latent helps."""
    train, other = (planted(800, seed, noise=0.15).vectors["resid_post.1"] for seed in (0, 1))
    normaliser = Normaliser.fit(train, 10.0)
    return normaliser(train), normaliser(other)


@pytest.mark.parametrize("name", KINDS)
def test_the_sae_is_one_of_saelens(name: str, vectors, tmp_path: Path) -> None:
    x, other = vectors
    family = KINDS[name](6, steps=40).fit(x)
    latents = family.sae_.encode(other)
    assert latents.shape == (800, 6)
    assert latents.min() >= 0
    torch.testing.assert_close(family.directions_, family.sae_.W_dec.data)
    np.testing.assert_allclose(family.reconstruct(other), (latents @ family.directions_).numpy(), atol=1e-6)
    error = np.square(family.reconstruct(other) - other.numpy()).sum() / other.square().sum().item()
    assert error < 0.6
    # Where a latent is active it is as large as the score says.
    active = latents.numpy() > 0
    np.testing.assert_allclose(latents.numpy()[active], family.scores(other)[active], atol=1e-6)
    family.sae_.save_model(tmp_path)
    torch.testing.assert_close(SAE.load_from_disk(tmp_path)(other), family.sae_(other))


@pytest.fixture(scope="module")
def many(planted) -> tuple[torch.Tensor, torch.Tensor]:
    """Enough vectors that what is active among the one is near what is among the other, few though they are."""
    train, other = (planted(6000, seed, noise=0.15).vectors["resid_post.1"] for seed in (0, 1))
    normaliser = Normaliser.fit(train, 10.0)
    return normaliser(train), normaliser(other)


@pytest.mark.parametrize("k", [0.5, 1, 2, 3.5])
def test_batch_topk_has_k_latents_active_when_used(k: float, many) -> None:
    """As SAELens leaves it, the threshold after so few steps is a fraction of what it should be."""
    x, other = many
    sae = BatchTopKSAE(12, k=k, steps=20).fit(x).sae_
    assert (sae.encode(x) > 0).float().sum(1).mean().item() == pytest.approx(k, abs=0.001)
    assert (sae.encode(other) > 0).float().sum(1).mean().item() == pytest.approx(k, rel=0.05)


def test_batch_topk_may_use_all(vectors) -> None:
    sae = BatchTopKSAE(4, k=4, steps=5).fit(vectors[0]).sae_
    assert sae.threshold.tolist() == [0, 0, 0, 0]


def test_jumprelu_comes_near_k(vectors) -> None:
    x, other = vectors
    family = JumpReLUSAE(8, k=2, steps=120).fit(x)
    assert family.sae_.threshold.min() >= 0
    assert (family.sae_.encode(other) > 0).float().sum(1).mean().item() == pytest.approx(2, abs=0.4)
    assert (x @ family.sae_.W_enc > 0).float().sum(1).mean() > 2.6, "the thresholds have something to do"


def test_a_larger_penalty_leaves_fewer_latents_active(vectors) -> None:
    x, other = vectors
    dense, sparse = (
        DelimiterSAE(8, l1_coefficient=weight, steps=60).fit(x).sae_.encode(other) for weight in (0.0, 0.4)
    )
    assert (sparse > 0).float().sum(1).mean() < 0.6 * (dense > 0).float().sum(1).mean()


def test_training_helps(vectors) -> None:
    x, other = vectors

    def error(steps: int) -> float:
        return float(np.square(BatchTopKSAE(8, steps=steps).fit(x).reconstruct(other) - other.numpy()).sum())

    assert error(50) < 0.98 * error(1)


@pytest.mark.parametrize(
    ("family", "words"),
    [
        (BatchTopKSAE(4, k=5), "choose k above 0 and at most 4"),
        (JumpReLUSAE(4, k=0), "k is 0 active latents"),
        (BatchTopKSAE(4, steps=0), "steps is 0"),
        (DelimiterSAE(4, l1_coefficient=-1), "l1_coefficient is -1"),
    ],
)
def test_settings_that_make_no_sense(family, words: str, vectors) -> None:
    with pytest.raises(ProbeError, match=words):
        family.fit(vectors[0])

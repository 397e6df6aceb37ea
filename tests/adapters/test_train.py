"""Ordinary SAEs through SAELens' trainer: better than random ones, and the same from disk, in both formats."""

import pytest
import torch

from probe import harvest
from probe.adapters import Example, load_sae, random_sae, sae_quality, save_sparsify, site_of, train_sae
from probe.errors import ProbeError
from probe.models import Site


@pytest.fixture
def ids():
    generator = torch.Generator().manual_seed(0)
    return [[1, *torch.randint(6, 60, (30,), generator=generator).tolist()] for _ in range(40)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_an_sae_is_trained_measured_and_kept(llama, ids, tmp_path):
    store = harvest(llama, ids, "resid_post.1", unit="token", folder=tmp_path / "acts")
    sae = train_sae(store, "resid_post.1", latents=96, k=8, steps=400, batch_size=128)
    texts = [Example(tuple(some)) for some in ids[:8]]
    good, bad = sae_quality(llama, sae, texts), sae_quality(llama, random_sae(sae, 0), texts)
    assert good["variance_explained"] > 0.7 > bad["variance_explained"] and 0 < good["kl"] < bad["kl"]
    assert 4 < good["l0"] <= 8 and good["dead"] < 0.5
    assert site_of(sae) == Site("resid_post", 1)
    x = torch.randn(6, 32)
    sae.save_model(str(tmp_path / "lens"))
    for folder in (tmp_path / "lens", save_sparsify(sae, tmp_path / "sparse")):
        torch.testing.assert_close(load_sae(folder)(x), sae(x), atol=1e-5, rtol=1e-5)
    with pytest.raises(ProbeError, match="k is 9 of 4 latents"):
        train_sae(store, "resid_post.1", latents=4, k=9)

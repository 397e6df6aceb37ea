"""SAEs between formats, against sparsify's own arithmetic written out."""

import json

import pytest
import torch
from safetensors.torch import load_file

from probe.adapters import load_sae, random_sae, save_sparsify, shuffled_decoder, site_of
from probe.errors import ProbeError
from probe.models import Site
from tests.adapters.conftest import random_topk


def sparsify(folder, x):
    """relu, top k, decode: as its README says it, on the file's own tensors."""
    cfg, tensors = json.loads((folder / "cfg.json").read_text()), load_file(folder / "sae.safetensors")
    pre = torch.relu((x - tensors["b_dec"]) @ tensors["encoder.weight"].T + tensors["encoder.bias"])
    values, places = pre.topk(cfg["k"], dim=-1)
    acts = torch.zeros_like(pre).scatter(-1, places, values)
    return acts @ tensors["W_dec"] + tensors["b_dec"]


@pytest.mark.parametrize("d_sae", [48, 32])
@pytest.mark.parametrize("by_factor", [False, True])
def test_sparsify_there_and_back(tmp_path, d_sae, by_factor):
    """A square decoder is where a wrong transpose goes unnoticed; ``num_latents`` 0 means the factor says it."""
    if by_factor and d_sae == 48:
        d_sae = 64
    sae, x = random_topk(d_sae=d_sae, k=5), torch.randn(20, 32, generator=torch.Generator().manual_seed(1))
    folder = save_sparsify(sae, tmp_path)
    assert folder.name == "layers.1"
    if by_factor:
        cfg = json.loads((folder / "cfg.json").read_text())
        (folder / "cfg.json").write_text(json.dumps(cfg | {"num_latents": 0, "expansion_factor": d_sae // 32}))
    torch.testing.assert_close(sparsify(folder, x), sae(x), atol=1e-6, rtol=1e-6)
    again = load_sae(folder)
    torch.testing.assert_close(again(x), sae(x), atol=1e-6, rtol=1e-6)
    assert site_of(again) == Site("resid_post", 1)


def test_saelens_there_and_back(tmp_path):
    sae = random_topk(site="blocks.2.hook_mlp_out")
    sae.save_model(str(tmp_path))
    again, x = load_sae(tmp_path), torch.randn(5, 32)
    assert torch.equal(again(x), sae(x)) and site_of(again) == Site("mlp_out", 2)
    assert site_of(load_sae(tmp_path, "resid_post.3")) == Site("resid_post", 3)


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("layers.12.mlp", Site("mlp_out", 12)),
        ("model.layers.3", Site("resid_post", 3)),
        ("layers.0.self_attn", Site("attn_out", 0)),
        ("h.7", Site("resid_post", 7)),
    ],
)
def test_the_folder_says_the_hookpoint(tmp_path, name, site):
    save_sparsify(random_topk(), tmp_path).rename(tmp_path / name)
    assert site_of(load_sae(tmp_path / name)) == site


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"activation": "groupmax"}, "groupmax SAE"),
        ({"skip_connection": True}, "skip connection"),
        ({"multi_topk": True}, "several k"),
        ({"num_latents": 7}, "broken"),
    ],
)
def test_what_has_no_equal_is_refused(tmp_path, change, said):
    folder = save_sparsify(random_topk(), tmp_path)
    cfg = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(cfg | change))
    with pytest.raises(ProbeError, match=said) as raised:
        load_sae(folder)
    assert str(folder) in str(raised.value)


def test_what_is_no_sae_is_refused(tmp_path):
    with pytest.raises(ProbeError, match="holds no SAE"):
        load_sae(tmp_path)
    folder = save_sparsify(random_topk(), tmp_path)
    whole = (folder / "sae.safetensors").read_bytes()
    (folder / "sae.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ProbeError, match="is broken"):
        load_sae(folder)
    (folder / "sae.safetensors").unlink()
    with pytest.raises(ProbeError, match="no weights"):
        load_sae(folder)
    save_sparsify(random_topk(), tmp_path).rename(tmp_path / "somewhere")
    with pytest.raises(ProbeError, match="name the site"):
        load_sae(tmp_path / "somewhere")
    with pytest.raises(ProbeError, match="sparsify has no hookpoint for resid_mid"):
        save_sparsify(random_topk(site="blocks.1.hook_resid_mid"), tmp_path)


def test_controls_keep_lengths_and_nothing_else():
    sae = random_topk()
    random, shuffled = random_sae(sae, 0), shuffled_decoder(sae, 0)
    torch.testing.assert_close(random.W_dec.norm(dim=1), sae.W_dec.norm(dim=1))
    torch.testing.assert_close(random.W_enc.norm(dim=0), sae.W_enc.norm(dim=0))
    assert (torch.cosine_similarity(random.W_dec, sae.W_dec).abs() < 0.8).all()
    x = torch.randn(9, 32)
    assert torch.equal(shuffled.encode(x), sae.encode(x)) and not torch.allclose(shuffled(x), sae(x))
    assert sorted(shuffled.W_dec[:, 0].tolist()) == sorted(sae.W_dec[:, 0].tolist())

from copy import copy
from pathlib import Path

import pytest
import torch

from probe.errors import ProbeError
from probe.models import ModelConfig, load_model
from probe.taxonomy import Normaliser, Taxonomy, TaxonomyConfig, fit_taxonomy, taxonomy_sites
from probe.taxonomy.sae.weights import Weights

SITE = "resid_post.1"


@pytest.fixture(scope="module")
def taxonomy(planted) -> Taxonomy:
    config = TaxonomyConfig(sizes=(6, 8), seeds=(0, 1), steps=100, batch_size=256)
    return fit_taxonomy(planted(800, 0), planted(300, 1), config)


@pytest.fixture(scope="module")
def raw(planted) -> torch.Tensor:
    return planted(64, 5).vectors[SITE]


def test_raw_activations_are_always_normalised(taxonomy: Taxonomy, raw: torch.Tensor) -> None:
    """The length of a centred activation changes nothing."""
    mean = taxonomy.normaliser.mean
    for factor in (0.01, 100.0):
        scaled = mean + factor * (raw - mean)
        assert torch.equal(taxonomy.behaviour(scaled), taxonomy.behaviour(raw))
        torch.testing.assert_close(taxonomy.latents(scaled), taxonomy.latents(raw), rtol=1e-3, atol=1e-4)
    z = taxonomy.normaliser(raw)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(len(z)))
    assert len(taxonomy.behaviour(z).unique()) == 1, "far from the mean of raw activations"
    public = [name for name in dir(taxonomy) if not name.startswith("_")]
    assert "weights" not in public


def test_the_saelens_object_eats_raw_activations(taxonomy: Taxonomy, raw: torch.Tensor) -> None:
    sae = taxonomy.sae
    length = taxonomy.normaliser.centred(raw).norm(dim=1, keepdim=True)
    torch.testing.assert_close(sae.encode(raw), taxonomy.latents(raw) * length, rtol=1e-4, atol=1e-4)
    undone = taxonomy.latents(raw) @ taxonomy.directions * length + taxonomy.normaliser.mean
    torch.testing.assert_close(sae(raw), undone, rtol=1e-4, atol=1e-4)
    assert torch.equal(sae.encode(raw).argmax(-1), taxonomy.behaviour(raw))


def test_loaded_by_saelens_it_is_the_same(taxonomy: Taxonomy, raw: torch.Tensor, tmp_path: Path) -> None:
    from sae_lens import SAE

    taxonomy.save(tmp_path)
    loaded = SAE.load_from_disk(tmp_path)
    assert torch.equal(loaded.encode(raw), taxonomy.sae.encode(raw))
    assert torch.equal(loaded(raw), taxonomy.sae(raw))
    assert loaded.cfg.metadata.hook_name == "blocks.1.hook_resid_post"
    assert loaded.cfg.metadata.probe_site == SITE
    assert "folded in" in loaded.cfg.metadata.probe_normalisation


def test_saved_and_loaded(taxonomy: Taxonomy, raw: torch.Tensor, tmp_path: Path) -> None:
    taxonomy.save(tmp_path)
    loaded = Taxonomy.load(tmp_path)
    assert torch.equal(loaded.latents(raw), taxonomy.latents(raw))
    assert torch.equal(loaded.behaviour(raw), taxonomy.behaviour(raw))
    assert torch.equal(loaded.directions, taxonomy.directions)
    for name in ("site", "layer", "model_name", "k_active", "n_behaviours", "labels", "examples", "scores", "names"):
        assert getattr(loaded, name) == getattr(taxonomy, name)
    assert loaded.normaliser.limit == taxonomy.normaliser.limit
    (tmp_path / "sae_weights.safetensors").write_bytes(b"cut")
    with pytest.raises(ProbeError, match=r"fit the taxonomy again|sae_weights.* cannot be read"):
        Taxonomy.load(tmp_path)


def test_shapes_and_formats(taxonomy: Taxonomy, raw: torch.Tensor) -> None:
    assert taxonomy.behaviour(raw[0]).shape == ()
    assert taxonomy.behaviour(raw.view(8, 8, 32)).shape == (8, 8)
    assert torch.equal(taxonomy.behaviour(raw.view(8, 8, 32)).flatten(), taxonomy.behaviour(raw))
    assert taxonomy.latents(raw.bfloat16()).dtype == torch.float32
    assert ((taxonomy.latents(raw) != 0).sum(-1) <= taxonomy.k_active).all()
    assert taxonomy.variance_explained(raw) == pytest.approx(taxonomy.scores["variance_explained"], abs=0.1)
    assert taxonomy.layer == 1


def test_only_the_output_of_a_block_has_a_layer_to_decode_at(taxonomy: Taxonomy) -> None:
    """``resid_pre.2`` is not ``resid_post.2``: a taxonomy of the one must not be read at the other."""
    weights = Weights(torch.zeros(32, 2), torch.zeros(2, 32), 1)
    for site in ("resid_pre.2", "embed"):
        elsewhere = Taxonomy(site, taxonomy.normaliser, weights)
        with pytest.raises(ProbeError, match=f"fitted at {site}"):
            _ = elsewhere.layer


def test_where_a_thinking_model_is_read(tiny_folder) -> None:
    model = load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu")
    assert taxonomy_sites(model, ()) == ("resid_post.2",)
    assert taxonomy_sites(model, (), spread=6) == ("resid_post.1", "resid_post.2", "resid_post.3")
    assert taxonomy_sites(model, (), spread=2) == ("resid_post.1", "resid_post.3")
    assert taxonomy_sites(model, ("resid_post.3", "attn_out.0")) == ("resid_post.3", "attn_out.0")
    with pytest.raises(ProbeError, match=r"reads llama.* at resid_post\.0 to resid_post\.3"):
        taxonomy_sites(model, ("resid_post.4",), decoded=True)
    with pytest.raises(ProbeError, match=r"taxonomy\.sites has attn_out\.0; decoding reads"):
        taxonomy_sites(model, ("attn_out.0",), decoded=True)
    with pytest.raises(ProbeError, match="names a site twice"):
        taxonomy_sites(model, ("resid_post.1", "resid_post.1"))


def test_what_people_and_judges_say_is_kept(taxonomy: Taxonomy, planted, tmp_path: Path) -> None:
    taxonomy.save(tmp_path)
    assert Taxonomy.load(tmp_path).names == taxonomy.labels, "the file that is written says nothing yet"
    titled = Taxonomy.load(tmp_path)
    titled.titles = ["checks a result", *[None] * (taxonomy.n_behaviours - 1)]
    titled.save(tmp_path)
    assert Taxonomy.load(tmp_path).names == ["checks a result", *taxonomy.labels[1:]]
    (tmp_path / "behaviours.yaml").write_text("0: {name: looks again}\n2: {merge_into: 1}\n")
    loaded = Taxonomy.load(tmp_path)
    assert loaded.names[0] == "looks again"
    assert loaded.edits.merged[:3] == [0, 1, 1]
    x = planted(64, 5).vectors[SITE]
    assert torch.equal(loaded.behaviour(x), taxonomy.behaviour(x)), "edits are about how behaviours are shown"
    loaded.save(tmp_path)
    assert "looks again" in (tmp_path / "behaviours.yaml").read_text(), "what people wrote is not written over"
    (tmp_path / "behaviours.yaml").write_text("0: {title: looks again}\n")
    with pytest.raises(ProbeError, match=r"unknown key 'title' in .*behaviours\.yaml: 0"):
        Taxonomy.load(tmp_path)


def test_what_fires(taxonomy: Taxonomy, planted) -> None:
    x = planted(64, 5, outliers=3).vectors[SITE]
    fires = taxonomy.fires(x)
    assert fires[:3].sum() == 0
    assert torch.equal(fires[3:].long().argmax(1), taxonomy.behaviour(x[3:]))
    assert fires[3:].sum() == 61


def test_it_fires_in_a_bridge(tiny_folder, tmp_path: Path) -> None:
    """Fitted on sentences, saved, read by SAELens and put into TransformerLens: the same latents for each token."""
    from sae_lens import SAE
    from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge

    from probe.activations import harvest

    model = load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu")
    texts = [f"It is {i} and {i * 7 % 11}. Then {i + 3} is more. Is it true? It is {i * i}." for i in range(60)]
    acts = harvest(model, texts, "resid_post.1")
    taxonomy = fit_taxonomy(acts, acts, TaxonomyConfig(sizes=(4,), seeds=(0,), k=2, steps=40))
    taxonomy.save(tmp_path)
    ids = model.tokenizer(texts[:3], return_tensors="pt", add_special_tokens=False).input_ids
    with torch.no_grad():
        resid = model.hf(ids, output_hidden_states=True).hidden_states[2]
    length = taxonomy.normaliser.centred(resid).norm(dim=-1, keepdim=True)
    expected = taxonomy.latents(resid) * length
    sae = SAE.load_from_disk(tmp_path)
    torch.testing.assert_close(sae.encode(resid), expected, rtol=1e-5, atol=1e-5)
    bridge = SAETransformerBridge.boot_transformers(
        "tiny", hf_model=load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu").hf, tokenizer=model.tokenizer
    )
    with torch.no_grad():
        _, cache = bridge.run_with_cache_with_saes(ids, saes=[sae], use_error_term=True)
    (fired,) = [value for name, value in cache.items() if name.endswith("hook_sae_acts_post")]
    assert (fired != 0).any()
    torch.testing.assert_close(fired, expected, rtol=1e-4, atol=1e-4)


def test_normaliser() -> None:
    x = torch.tensor([[3.0, 0.0], [5.0, 0.0], [4.0, 3.0], [4.0, -3.0], [9000.0, 0.0]])
    normaliser = Normaliser.fit(x, outlier_multiple=10.0)
    torch.testing.assert_close(normaliser.mean, torch.tensor([4.0, 0.0]))
    assert normaliser.keep(x).tolist() == [True, True, True, True, False]
    torch.testing.assert_close(normaliser(x[:3]), torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    assert normaliser(torch.tensor([4.0, 0.0])).tolist() == [0.0, 0.0]


def test_shown(taxonomy: Taxonomy) -> None:
    assert "behaviours at resid_post.1" in repr(taxonomy)
    shown = copy(taxonomy)
    shown.labels = ["a <b>", *taxonomy.labels[1:]]
    share = f"{taxonomy.scores['shares'][0]:.0%}"
    assert f"<tr><td>0</td><td>a &lt;b&gt;</td><td>{share}</td>" in shown._repr_html_()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(taxonomy: Taxonomy, raw: torch.Tensor) -> None:
    assert taxonomy.behaviour(raw.cuda()).is_cuda
    assert torch.equal(taxonomy.behaviour(raw.cuda()).cpu(), taxonomy.behaviour(raw))

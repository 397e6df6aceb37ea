"""The table of sites: names in and out, and refusals."""

import pytest

from probe.errors import NotApplicable, ProbeError
from probe.models import ARCHITECTURES, KINDS, Site, all_sites, load_model, place
from tests.tiny_models import tiny_config, tiny_model


@pytest.mark.parametrize("text", ["resid_post.2", "attn_out.11", "embed", "model.layers.2.mlp", "a.b.c:input"])
def test_names_round_trip(text):
    assert str(Site.parse(text)) == text
    assert Site.parse(Site.parse(text)) == Site.parse(text)


def test_names_in_other_libraries(tiny_folder):
    hf = load_model(tiny_folder("gpt2", "letters")).hf
    assert Site("resid_mid", 3).lens == "blocks.3.hook_resid_mid"
    assert Site("embed").lens == "hook_embed"
    assert place(hf, "resid_mid.3").nnsight == "transformer.h[3].ln_2.input"
    assert place(hf, "final_norm").nnsight == "transformer.ln_f.output"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resid_psot.2", "did you mean 'resid_post'"),
        ("resid_post", "needs a layer"),
        ("resid_post.", "is not a site"),
        ("resid_post.two", "is not a site"),
        ("resid_post.2:middle", "is not a module path"),
        (":input", "is not a module path"),
        ("resid_post.-1", "needs a layer, counted from 0"),
        ("embed.0", "has no layer"),
    ],
)
def test_names_that_are_none(text, said):
    with pytest.raises(ProbeError, match=said):
        Site.parse(text)


def test_every_place_of_the_table_is_in_the_model(tiny_folder, any_arch):
    hf = load_model(tiny_folder(any_arch, "letters")).hf
    for site in all_sites(hf):
        hf.get_submodule(place(hf, site).module)
    lacking = any_arch == "gpt_neox"  # whose blocks are parallel
    assert len(all_sites(hf)) == (12 - lacking) * 4 + 3
    assert all_sites(hf, "z", "logits") == [*(Site("z", i) for i in range(4)), Site("logits")]


def test_every_architecture_of_the_table_is_tested(any_arch, tiny_folder):
    assert load_model(tiny_folder(any_arch, "letters")).hf.config.model_type in ARCHITECTURES


def test_module_paths(tiny_folder):
    hf = load_model(tiny_folder("llama", "letters")).hf
    site = Site.parse("model.layers.2.mlp.act_fn:input")
    assert site.is_module and place(hf, site).module == "model.layers.2.mlp.act_fn" and place(hf, site).side == "input"
    assert place(hf, "lm_head:output").side == "output"
    with pytest.raises(ProbeError, match=r"this model has no module 'model\.layers\.2\.mpl'; did you mean"):
        place(hf, "model.layers.2.mpl")
    with pytest.raises(ProbeError, match="TransformerLens has no hook for the module"):
        _ = site.lens


def test_layers_beyond_the_last_are_refused_with_the_range(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    with pytest.raises(ProbeError, match=r"no site resid_post\.4; it has layers 0 to 3"):
        place(model.hf, "resid_post.4")


def test_a_site_that_an_architecture_lacks(tiny_folder, monkeypatch):
    model = load_model(tiny_folder("llama", "letters"))
    monkeypatch.setitem(ARCHITECTURES, "llama", {k: v for k, v in ARCHITECTURES["llama"].items() if k != "z"})
    with pytest.raises(ProbeError, match="llama models have no site 'z'; they have embed, resid_pre, q, k, v"):
        place(model.hf, "z.0")


def test_sites_of_layers_that_differ_are_refused_by_layer():
    hf = tiny_model(tiny_config("deepseek_v3", first_k_dense_replace=2))
    assert all_sites(hf, "mlp_pre") == [Site("mlp_pre", 0), Site("mlp_pre", 1)]
    assert all_sites(hf, "router_logits") == [Site("router_logits", 2), Site("router_logits", 3)]
    with pytest.raises(NotApplicable, match=r"no site 'experts\.0': the MLP of layer 0 is not a mixture of experts"):
        place(hf, "experts.0")
    with pytest.raises(NotApplicable, match=r"no site 'mlp_pre\.3': the MLP of layer 3 is a mixture of experts"):
        place(hf, "mlp_pre.3")
    with pytest.raises(NotApplicable, match=r"no site 'k\.0': keys and values of all heads are made of one latent"):
        place(hf, "k.0")
    hf = tiny_model(tiny_config("qwen3_next"))
    linear = hf.config.layer_types.index("linear_attention")
    for kind in ("q", "k", "v", "pattern", "z"):
        assert linear not in [site.layer for site in all_sites(hf, kind)]
        with pytest.raises(NotApplicable, match=f"layer {linear} has linear attention, which has no query"):
            place(hf, Site(kind, linear))
    assert place(hf, Site("attn_out", linear)).module.endswith("linear_attn")


def test_the_text_model_in_a_model_for_images_is_found():
    hf = tiny_model(tiny_config("gemma3"))
    assert place(hf, "resid_post.1").module == "model.language_model.layers.1"
    assert place(hf, "mlp_out.1").module == "model.language_model.layers.1.post_feedforward_layernorm"
    assert place(hf, "logits").module == "lm_head"


def test_every_kind_says_what_it_is():
    assert all(kind.meaning for kind in KINDS.values())
    assert all(set(places) <= set(KINDS) for places in ARCHITECTURES.values())

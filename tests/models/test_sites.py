"""The table of sites: names in and out, and refusals."""

import pytest

from probe.errors import NotApplicable, ProbeError
from probe.models import ARCHITECTURES, KINDS, Site, all_sites, load_model, place


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


def test_an_architecture_that_is_not_in_the_table(tiny_folder, monkeypatch):
    model = load_model(tiny_folder("llama", "letters"))
    monkeypatch.delitem(ARCHITECTURES, "llama")
    with pytest.raises(NotApplicable, match="sites of 'llama' models are not known, only those of mistral"):
        _ = model.layers


def test_a_site_that_an_architecture_lacks(tiny_folder, monkeypatch):
    model = load_model(tiny_folder("llama", "letters"))
    monkeypatch.setitem(ARCHITECTURES, "llama", {k: v for k, v in ARCHITECTURES["llama"].items() if k != "resid_mid"})
    with pytest.raises(ProbeError, match="llama models have no site 'resid_mid'; they have embed, resid_pre, q, k, v"):
        place(model.hf, "resid_mid.0")


def test_every_kind_says_what_it_is():
    assert all(kind.meaning for kind in KINDS.values())
    assert all(set(places) <= set(KINDS) for places in ARCHITECTURES.values())

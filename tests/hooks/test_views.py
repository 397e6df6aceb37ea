"""Torch hooks, nnsight and TransformerLens see the same tensors at every site, on every architecture."""

import pytest
import torch

from probe._errors import ProbeError
from probe.hooks import capture, nnsight_value, to_nnsight, to_transformer_lens
from probe.models import all_sites, load_model, place

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@torch.no_grad()
def test_nnsight_agrees_at_every_site(model, ids):
    with capture(model, all_sites(model.hf), stop=False) as acts:
        logits = model.hf(ids).logits
    lm = to_nnsight(model)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for site in all_sites(model.hf):
        with lm.trace(batch):
            seen = nnsight_value(lm, site).save()
        torch.testing.assert_close(seen, acts[site], **CLOSE, msg=str(site))
    with lm.trace(batch):
        mid = nnsight_value(lm, "resid_mid.1").save()
        post = nnsight_value(lm, "resid_post.1").save()
        out = lm.output.logits.save()
    for one, other in ((mid, acts["resid_mid.1"]), (post, acts["resid_post.1"]), (out, logits)):
        assert torch.equal(one, other)


def test_nnsight_leaves_our_tokenizer_alone(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    model.tokenizer.padding_side = "right"
    lm = to_nnsight(model)
    assert (model.tokenizer.padding_side, lm.tokenizer.padding_side) == ("right", "left")


@torch.no_grad()
def test_transformer_lens_agrees_at_every_site(model, ids):
    model.hf.set_attn_implementation("eager")
    with capture(model, all_sites(model.hf), stop=False) as acts:
        logits = model.hf(ids).logits
    weights = {name: tensor.clone() for name, tensor in model.hf.state_dict().items()}
    bridge = to_transformer_lens(model)
    seen, cache = bridge.run_with_cache(ids, attention_mask=torch.ones_like(ids))
    for site in all_sites(model.hf):
        torch.testing.assert_close(cache[site.lens], acts[site], **CLOSE, msg=str(site))
    torch.testing.assert_close(seen, logits, **CLOSE)
    assert weights.keys() == model.hf.state_dict().keys()
    assert torch.equal(model.hf(ids).logits, logits)


@torch.no_grad()
def test_the_lens_gives_text_no_second_start_token(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    bridge = to_transformer_lens(model)
    assert bridge.to_tokens("ab")[0].tolist() == model.tokenizer("ab").input_ids


def test_an_architecture_that_the_lens_does_not_know(tiny_folder, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("Could not determine supported architecture from config.\nMore lines.")

    monkeypatch.setattr("transformer_lens.model_bridge.TransformerBridge.boot_transformers", refuse)
    model = load_model(tiny_folder("llama", "letters"))
    said = r"TransformerLens cannot show llama-letters-0: Could not determine supported architecture from config\.$"
    with pytest.raises(ProbeError, match=said):
        to_transformer_lens(model)


def test_the_nnsight_path_in_words_is_the_one_that_is_read(model):
    lm = to_nnsight(model)
    for site in all_sites(model.hf):
        envoy = lm
        for name in place(model.hf, site).nnsight.rpartition(".")[0].replace("[", ".").replace("]", "").split("."):
            envoy = envoy[int(name)] if name.isdigit() else getattr(envoy, name)
        assert envoy._module is model.hf.get_submodule(place(model.hf, site).module)

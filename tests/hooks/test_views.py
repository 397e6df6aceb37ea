"""Torch hooks, nnsight and TransformerLens see the same tensors at every site, on every architecture."""

import pytest
import torch

from probe._errors import ProbeError
from probe.hooks import capture, nnsight_value, to_nnsight, to_transformer_lens
from probe.models import place, sites

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@torch.no_grad()
def test_nnsight_agrees_at_every_site(model, ids):
    with capture(model, sites(model.hf), stop=False) as acts:
        logits = model.hf(ids).logits
    lm = to_nnsight(model)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for site in sites(model.hf):
        with lm.trace(batch):
            seen = nnsight_value(lm, site).save()
        torch.testing.assert_close(seen, acts[site], **CLOSE, msg=str(site))
    with lm.trace(batch):
        mid = nnsight_value(lm, "resid_mid.1").save()
        post = nnsight_value(lm, "resid_post.1").save()
        out = lm.output.logits.save()
    assert torch.equal(mid, acts["resid_mid.1"]) and torch.equal(post, acts["resid_post.1"]) and torch.equal(out, logits)


def test_nnsight_leaves_our_tokenizer_alone(tiny_folder, letters):
    from probe.models import load_model

    model = load_model(tiny_folder("llama", "letters"))
    model.tokenizer.padding_side = "right"
    lm = to_nnsight(model)
    assert (model.tokenizer.padding_side, lm.tokenizer.padding_side) == ("right", "left")


@torch.no_grad()
def test_transformer_lens_agrees_at_every_site(model, ids):
    model.hf.set_attn_implementation("eager")
    with capture(model, sites(model.hf), stop=False) as acts:
        logits = model.hf(ids).logits
    weights = {name: tensor.clone() for name, tensor in model.hf.state_dict().items()}
    bridge = to_transformer_lens(model)
    seen, cache = bridge.run_with_cache(ids, attention_mask=torch.ones_like(ids))
    for site in sites(model.hf):
        torch.testing.assert_close(cache[site.lens], acts[site], **CLOSE, msg=str(site))
    torch.testing.assert_close(seen, logits, **CLOSE)
    assert weights.keys() == model.hf.state_dict().keys()
    assert torch.equal(model.hf(ids).logits, logits)


@torch.no_grad()
def test_the_lens_gives_text_no_second_start_token(tiny_folder):
    from probe.models import load_model

    model = load_model(tiny_folder("llama", "letters"))
    bridge = to_transformer_lens(model)
    assert bridge.to_tokens("ab")[0].tolist() == model.tokenizer("ab").input_ids


def test_an_architecture_that_the_lens_does_not_know(tiny_folder, monkeypatch):
    from probe.models import load_model

    model = load_model(tiny_folder("llama", "letters"))
    monkeypatch.setattr(type(model.hf), "__name__", "NovelForCausalLM")
    monkeypatch.setattr(type(model.hf.config), "model_type", "novel")
    with pytest.raises(ProbeError, match="TransformerLens cannot show"):
        to_transformer_lens(model)


def test_the_nnsight_path_in_words_is_the_one_that_is_read(model, ids):
    lm = to_nnsight(model)
    for site in sites(model.hf):
        envoy = lm
        for name in place(model.hf, site).nnsight.rpartition(".")[0].replace("[", ".").replace("]", "").split("."):
            envoy = envoy[int(name)] if name.isdigit() else getattr(envoy, name)
        assert envoy._module is model.hf.get_submodule(place(model.hf, site).module)

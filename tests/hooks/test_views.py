"""Torch hooks, nnsight and TransformerLens see the same tensors at every site, on every architecture."""

import pytest
import torch

from probe.errors import ProbeError
from probe.hooks import Tokens, capture, edit
from probe.models import all_sites, load_model, nnsight_value, place

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def eager(model):
    """Attention computed step by step, which is how TransformerLens computes it and where patterns are formed."""
    model.hf.set_attn_implementation("eager")
    return model


@torch.no_grad()
def test_nnsight_agrees_at_every_site(eager, ids):
    sites = all_sites(eager.hf)
    with capture(eager, sites, stop=False) as acts:
        logits = eager.hf(ids).logits
    lm = eager.nnsight()
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for site in sites:
        with lm.trace(batch):
            seen = nnsight_value(lm, site).save()
        torch.testing.assert_close(seen, acts[site], **CLOSE, msg=str(site))
    with lm.trace(batch):
        first = nnsight_value(lm, "q.1").save()
        post = nnsight_value(lm, "resid_post.1").save()
        out = lm.output.logits.save()
    for one, other in ((first, acts["q.1"]), (post, acts["resid_post.1"]), (out, logits)):
        torch.testing.assert_close(one, other, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("site", ["k.1", "z.2", "resid_post.1", "mlp_pre.0"])
def test_nnsight_writes_what_an_edit_writes(model, ids, site):
    with edit(model, {site: torch.ones(())}):
        expected = model.hf(ids).logits
    lm = model.nnsight()
    with lm.trace({"input_ids": ids, "attention_mask": torch.ones_like(ids)}):
        nnsight_value(lm, site)[:] += 1.0
        seen = lm.output.logits.save()
    torch.testing.assert_close(seen, expected, atol=5e-5, rtol=1e-4)


def test_nnsight_leaves_our_tokenizer_alone(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    model.tokenizer.padding_side = "right"
    lm = model.nnsight()
    assert (model.tokenizer.padding_side, lm.tokenizer.padding_side) == ("right", "left")


def test_nnsight_says_that_fused_attention_forms_no_pattern(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    with pytest.raises(ProbeError, match=r"fused attention has no pattern\.1"):
        nnsight_value(model.nnsight(), "pattern.1")


@torch.no_grad()
def test_transformer_lens_agrees_at_every_site(eager, ids):
    with capture(eager, all_sites(eager.hf), stop=False) as acts:
        logits = eager.hf(ids).logits
    weights = {name: tensor.clone() for name, tensor in eager.hf.state_dict().items()}
    bridge = eager.lens()
    seen, cache = bridge.run_with_cache(ids, attention_mask=torch.ones_like(ids))
    for site in all_sites(eager.hf):
        torch.testing.assert_close(cache[site.lens], acts[site], **CLOSE, msg=str(site))
    torch.testing.assert_close(seen, logits, **CLOSE)
    assert weights.keys() == eager.hf.state_dict().keys()
    assert torch.equal(eager.hf(ids).logits, logits)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["q", "z", "pattern", "attn_out", "mlp_post", "resid_post"])
def test_transformer_lens_writes_what_an_edit_writes(eager, ids, kind):
    site = next(s for s in all_sites(eager.hf, kind) if s.layer == 1)
    with edit(eager, {site: lambda hidden: 0.5 * hidden}):
        expected = eager.hf(ids).logits
    bridge = eager.lens()
    hooks = [(site.lens, lambda value, hook: 0.5 * value)]  # noqa: ARG005 - TransformerLens names the argument
    seen = bridge.run_with_hooks(ids, fwd_hooks=hooks, attention_mask=torch.ones_like(ids))
    torch.testing.assert_close(seen, expected, atol=5e-5, rtol=1e-4)


@torch.no_grad()
def test_steered_generation_agrees_with_both(tiny_folder):
    """Added at every token, cached and greedy: the same tokens by an edit, by nnsight and by TransformerLens."""
    model = load_model(tiny_folder("llama", "letters"))
    model.hf.set_attn_implementation("eager")
    v = 2 * torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    ids, n = torch.tensor([[5, 6, 7, 8]]), 6
    kinds = {"max_new_tokens": n, "min_new_tokens": n, "do_sample": False}
    with edit(model, {"resid_post.1": v}):
        ours = model.hf.generate(ids, attention_mask=torch.ones_like(ids), **kinds)
    lm = model.nnsight()
    with lm.generate(**kinds) as tracer:
        with tracer.invoke({"input_ids": ids, "attention_mask": torch.ones_like(ids)}):
            for _ in tracer.iter[:n]:
                lm.model.layers[1].output[:] += v
        with tracer.invoke():
            theirs = tracer.result.save()
    assert torch.equal(theirs, ours)
    bridge = model.lens()
    with bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_post", lambda value, hook: value + v)]):  # noqa: ARG005
        lens = bridge.generate(ids, max_new_tokens=n, stop_at_eos=False, do_sample=False, verbose=False)
    assert torch.equal(lens, ours)
    with edit(model, {"resid_post.1": v}, tokens=Tokens(phase="prompt")):
        assert not torch.equal(model.hf.generate(ids, attention_mask=torch.ones_like(ids), **kinds), ours)


@torch.no_grad()
def test_the_lens_gives_text_no_second_start_token(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    bridge = model.lens()
    assert bridge.to_tokens("ab")[0].tolist() == model.tokenizer("ab").input_ids


def test_an_architecture_that_transformer_lens_lacks(tiny_folder, monkeypatch):
    from transformer_lens.model_bridge import TransformerBridge

    def refuse(*_args, **_kinds):
        raise ValueError("Could not determine architecture from config.\nmore")

    model = load_model(tiny_folder("llama", "letters"))
    monkeypatch.setattr(TransformerBridge, "boot_transformers", refuse)
    said = r"TransformerLens does not support .*: Could not determine architecture from config\.$"
    with pytest.raises(ProbeError, match=said):
        model.lens()


def test_the_nnsight_path_in_words_is_the_one_that_is_read(model):
    lm = model.nnsight()
    for site in all_sites(model.hf):
        envoy = lm
        path = place(model.hf, site).nnsight.removesuffix("[1]").rpartition(".")[0]
        for name in path.replace("[", ".").replace("]", "").split("."):
            envoy = envoy[int(name)] if name.isdigit() else getattr(envoy, name)
        assert envoy._module is model.hf.get_submodule(place(model.hf, site).module)


def test_a_copy_made_inside_a_block_is_refused(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    with (
        pytest.raises(ProbeError, match="leave the block first"),
        edit(model, {"embed": torch.zeros(32)}),
    ):
        model.lens()

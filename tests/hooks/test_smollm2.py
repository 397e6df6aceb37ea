"""A real checkpoint: what holds of tiny random models holds of SmolLM2-135M, padding and generation included."""

import pytest
import torch

from probe.hooks import Add, Tokens, capture, edit
from probe.models import all_sites, nnsight_value

pytestmark = pytest.mark.slow

TEXTS = ["Six times seven is", "The capital of France is Paris, and the capital of Italy is"]


def assert_same(one: torch.Tensor, other: torch.Tensor, site: object, limit: float = 1e-5) -> None:
    """Token by token, relative to the token's norm: the first token's state is a hundred times the others'."""
    assert one.shape == other.shape, site
    apart, size = (one - other).flatten(2).norm(dim=-1), other.flatten(2).norm(dim=-1)
    worst = (apart / size.clamp(min=1e-6)).max().item()
    assert worst < limit, f"{site}: {worst:.1e} apart"


@pytest.fixture(scope="module")
def batch(smollm2):
    found = smollm2.tokenizer(TEXTS, return_tensors="pt", padding=True, padding_side="left")
    mask = found["attention_mask"]
    return {
        "input_ids": found["input_ids"],
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
    }


@torch.no_grad()
def test_residual_stream_is_transformers_own(smollm2, batch):
    asked = all_sites(smollm2.hf, "embed", "resid_pre", "resid_mid", "attn_out", "mlp_out", "resid_post", "final_norm")
    states = smollm2.hf(**batch, output_hidden_states=True).hidden_states
    with capture(smollm2, asked) as acts:
        smollm2.hf(**batch)
    assert torch.equal(acts["embed"], states[0])
    assert torch.equal(acts["final_norm"], states[-1])
    for i in range(smollm2.n_layers):
        assert torch.equal(acts[f"resid_pre.{i}"], states[i])
        assert_same(acts[f"resid_mid.{i}"], acts[f"resid_pre.{i}"] + acts[f"attn_out.{i}"], i)
        assert_same(acts[f"resid_post.{i}"], acts[f"resid_mid.{i}"] + acts[f"mlp_out.{i}"], i)
        if i + 1 < smollm2.n_layers:
            assert torch.equal(acts[f"resid_post.{i}"], states[i + 1])


@torch.no_grad()
def test_three_views_agree_at_every_site(smollm2):
    ids = smollm2.tokenizer(TEXTS[1], return_tensors="pt").input_ids
    mask = torch.ones_like(ids)
    before = smollm2.hf.config._attn_implementation
    smollm2.hf.set_attn_implementation("eager")
    try:
        sites = [site for site in all_sites(smollm2.hf) if site.layer in (None, 0, 13, 29)]
        with capture(smollm2, sites, stop=False) as acts:
            smollm2.hf(ids, attention_mask=mask)
        lm = smollm2.nnsight()
        for site in sites:
            with lm.trace({"input_ids": ids, "attention_mask": mask}):
                seen = nnsight_value(lm, site).save()
            assert_same(seen, acts[site], site)
        bridge = smollm2.lens()
        names = [site.lens for site in sites]
        _, cache = bridge.run_with_cache(ids, attention_mask=mask, names_filter=names)
        for site in sites:
            assert_same(cache[site.lens], acts[site], site)
    finally:
        smollm2.hf.set_attn_implementation(before)


@torch.no_grad()
def test_steered_generation_cached_batched_and_alone(smollm2, batch):
    """The same vector at the same tokens, four ways: a padded batch, single rows, no cache, transformers' own loop."""
    v = torch.randn(smollm2.d_model, generator=torch.Generator().manual_seed(0))
    kinds = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": smollm2.pad_id}
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    steer = {"resid_post.13": Add(v, 6.0, tokens=Tokens(phase="generation") | Tokens(positions=-1))}
    with edit(smollm2, steer):
        cached = smollm2.hf.generate(**inputs, **kinds)
    with edit(smollm2, steer):
        assert torch.equal(smollm2.hf.generate(**inputs, use_cache=False, **kinds), cached)
    for row, text in enumerate(TEXTS):
        ids = smollm2.tokenizer(text, return_tensors="pt").input_ids
        with edit(smollm2, steer):
            alone = smollm2.hf.generate(ids, attention_mask=torch.ones_like(ids), **kinds)
        assert alone[0, -8:].tolist() == cached[row, -8:].tolist()
    assert not torch.equal(smollm2.hf.generate(**inputs, **kinds), cached)

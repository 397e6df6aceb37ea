"""What every architecture of the table promises, on tiny random models: the sites are where they are said to be."""

from functools import cache

import pytest
import torch
from transformers import PreTrainedModel

from probe.errors import NotApplicable
from probe.hooks import Tokens, UpperLayers, capture, causal_masks, edit
from probe.models import ARCHITECTURES, KINDS, Model, Site, all_sites, nnsight_value, place
from probe.models.sites.views import to_nnsight, to_transformer_lens
from tests.supported_models import tokenizer
from tests.tiny_models import VOCAB, tiny_config, tiny_model

_GEMMA_EXPERTS = {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32}

#: Each architecture of the table, and variants whose blocks are made another way.
MODELS: dict[str, tuple[str, dict]] = {kind: (kind, {}) for kind in ARCHITECTURES} | {
    "gpt_neox-serial": ("gpt_neox", {"use_parallel_residual": False}),
    "stablelm-parallel": ("stablelm", {"use_parallel_residual": True}),
    "gemma3": ("gemma3", {}),
    "gemma4": ("gemma4", {}),
    "gemma4_text-experts": ("gemma4_text", _GEMMA_EXPERTS),
    "deepseek_v3-plain-queries": ("deepseek_v3", {"q_lora_rank": None}),
    "qwen3_moe-mixed": ("qwen3_moe", {"decoder_sparse_step": 2}),
    "deepseek_v3-mixed": ("deepseek_v3", {"first_k_dense_replace": 2}),
    "deepseek_v2-mixed": ("deepseek_v2", {"first_k_dense_replace": 1}),
    "glm4_moe-mixed": ("glm4_moe", {"first_k_dense_replace": 1}),
    "llama4_text-mixed": ("llama4_text", {"moe_layers": [1, 3]}),
}


@cache
def made(name: str) -> PreTrainedModel:
    """A tiny model whose factors are far from 1, so that one that is forgotten shows."""
    kind, changes = MODELS[name]
    config = tiny_config(kind, **changes)
    text = config.get_text_config(decoder=True)
    for factor, value in {"residual_multiplier": 0.22, "embedding_multiplier": 3.0, "logits_scaling": 2.0}.items():
        if hasattr(text, factor):
            setattr(text, factor, value)
    hf = tiny_model(config).requires_grad_(False)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for name, buffer in hf.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.fill_(0.7)
        for name, weight in hf.named_parameters():
            if "norm" in name or name.endswith(("router.scale", "per_expert_scale")):
                weight.add_(0.3 * torch.randn_like(weight))
    return hf


#: Of architectures with the same places, the quick run tries the first, and what is written is written into it alone.
_FIRST = {id(places): kind for kind, places in reversed(ARCHITECTURES.items())}
FIRST = [name for name in MODELS if name not in ARCHITECTURES or _FIRST[id(ARCHITECTURES[name])] == name]


@pytest.fixture(params=[name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in MODELS])
def hf(request) -> PreTrainedModel:
    """A model of each architecture."""
    return made(request.param)


@pytest.fixture(params=FIRST)
def first_hf(request) -> PreTrainedModel:
    """A model of each architecture whose places are not those of one before."""
    return made(request.param)


@pytest.fixture
def ids() -> torch.Tensor:
    """A batch longer than the windows of tiny models, without padding."""
    return torch.randint(3, VOCAB, (2, 13), generator=torch.Generator().manual_seed(0))


def text(hf):
    return hf.config.get_text_config(decoder=True)


def plain(hf) -> list[Site]:
    """Every site but the patterns, for which the attention is computed another way, to other last digits."""
    return [site for site in all_sites(hf) if site.kind != "pattern"]


def hooks_of(hf) -> int:
    """How many hooks hang anywhere in the model; transformers leaves some that collect hidden states."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in hf.modules())


def run(hf, ids, sites=None):
    """Capture sites, all but the patterns by default, and return them with the logits."""
    with torch.no_grad(), capture(hf, sites or plain(hf), stop=False) as acts:
        logits = hf(input_ids=ids, use_cache=False).logits
    return acts, logits


def test_every_architecture_builds_and_has_every_layer(hf):
    n_layers = text(hf).num_hidden_layers
    assert {site.layer for site in all_sites(hf)} == {None, *range(n_layers)}
    for kind in ("embed", "final_norm", "logits"):
        assert all_sites(hf, kind) == [Site(kind)]
    for kind in ("resid_pre", "attn_out", "mlp_out", "resid_post"):
        assert all_sites(hf, kind) == [Site(kind, i) for i in range(n_layers)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_residual_stream_is_transformers_own_and_adds_up(hf, ids, dtype):
    before = hf.dtype
    hf.to(dtype)
    try:
        acts, logits = run(hf, ids)
        with torch.no_grad():
            plain_run = hf(input_ids=ids, use_cache=False, output_hidden_states=True)
            states = plain_run.hidden_states
        assert torch.equal(plain_run.logits, logits)
        close = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.02}
        for i in range(len(states) - 1):
            assert torch.equal(acts[f"resid_pre.{i}"], states[i])
            assert torch.equal(acts[f"resid_post.{i}"], states[i + 1]) or i == len(states) - 2
            whole = acts[f"resid_pre.{i}"] + acts[f"attn_out.{i}"]
            if f"resid_mid.{i}" in acts:
                torch.testing.assert_close(acts[f"resid_mid.{i}"], whole, **close)
            whole = whole + acts[f"mlp_out.{i}"]
            if f"per_layer_out.{i}" in acts:
                whole = whole + acts[f"per_layer_out.{i}"]
            whole = whole * getattr(hf.get_submodule(place(hf, f"resid_post.{i}").module), "layer_scalar", 1.0)
            torch.testing.assert_close(acts[f"resid_post.{i}"], whole, **close)
        assert torch.equal(acts["final_norm"], states[-1])
        assert torch.equal(hf.get_submodule(place(hf, "final_norm").module)(acts[f"resid_post.{i}"]), states[-1])
        if text(hf).model_type != "gpt2":
            torch.testing.assert_close(acts["embed"], states[0], **close)
    finally:
        hf.to(before)


def test_heads_and_neurons_write_what_is_added(hf, ids):
    acts, _ = run(hf, ids)
    for site in all_sites(hf, "z", "mlp_post"):
        read = acts[site]
        if site.kind == "z":
            assert read.shape[2] == text(hf).num_attention_heads
            read = read.flatten(-2)
        module = hf.get_submodule(place(hf, site).module)
        to = Site({"z": "attn_out", "mlp_post": "mlp_out"}[site.kind], site.layer)
        where, out = place(hf, to), module(read)
        target = hf.get_submodule(where.module)
        if module not in set(target.modules()) and "experts" not in str(target):  # a norm that follows
            if site.kind == "mlp_post" and f"shared_out.{site.layer}" in acts:  # Gemma 4: added to that of the experts
                out = hf.get_submodule(place(hf, f"shared_out.{site.layer}").module)(out)
                out = out + acts[f"expert_out.{site.layer}"]
            out = target(out)
        torch.testing.assert_close(where.times * out, acts[to], atol=1e-5, rtol=1e-5, msg=str(site))


def test_patterns_weigh_values_and_sum_to_one(hf, ids):
    before = text(hf)._attn_implementation
    sites = all_sites(hf, "pattern", "v", "z")
    acts, logits = run(hf, ids, sites)
    assert text(hf)._attn_implementation == before
    hf.set_attn_implementation("eager")  # which gives patterns too; another kind gives other last digits
    try:
        torch.testing.assert_close(run(hf, ids)[1], logits, atol=1e-5, rtol=1e-5)
    finally:
        hf.set_attn_implementation(before)
    kind = text(hf).model_type
    for site in all_sites(hf, "pattern"):
        pattern, layer = acts[site], site.layer
        sums = pattern.sum(-1)
        if kind == "gpt_oss":  # the rest attends to nothing
            assert (sums < 1).all()
        else:
            torch.testing.assert_close(sums, torch.ones_like(sums))
        assert pattern.triu(1).abs().max() == 0 and pattern.shape[1] == text(hf).num_attention_heads
        if f"v.{layer}" not in acts or kind.startswith(("qwen3_next", "qwen3_5")):
            continue
        v = acts[f"v.{layer}"]
        attention = hf.get_submodule(place(hf, site).module)
        v = attention.v_norm(v) if hasattr(attention, "v_norm") else v
        v = v.repeat_interleave(pattern.shape[1] // v.shape[2], 2).transpose(1, 2)
        torch.testing.assert_close((pattern @ v).transpose(1, 2), acts[f"z.{layer}"], atol=1e-5, rtol=1e-5)


def test_patterns_are_those_of_eager_attention(hf, ids):
    sites = all_sites(hf, "pattern")
    acts, _ = run(hf, ids, sites)
    before = text(hf)._attn_implementation
    hf.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            theirs = hf(input_ids=ids, use_cache=False, output_attentions=True).attentions
    finally:
        hf.set_attn_implementation(before)
    for site in sites:
        wanted = theirs[site.layer if len(theirs) == text(hf).num_hidden_layers else sites.index(site)]
        torch.testing.assert_close(acts[site], wanted, atol=1e-5, rtol=1e-5, msg=str(site))


def test_an_edit_is_read_back_and_undone(first_hf, ids):
    hf = first_hf
    acts, before = run(hf, ids)
    hooks = hooks_of(hf)

    def change(hidden):
        return hidden + 0.5 * hidden.abs().mean() + 0.1

    for site in plain(hf):
        if place(hf, site).only_read:
            with pytest.raises(NotApplicable, match=f"{site} can only be read: "), edit(hf, {site: torch.zeros(())}):
                pass
        elif site.layer in (None, 1, 2):
            with edit(hf, {site: change}):
                seen, changed = run(hf, ids, [site])
            torch.testing.assert_close(seen[site], change(acts[site]), atol=1e-5, rtol=1e-5, msg=str(site))
            assert not torch.equal(changed, before), site
    assert torch.equal(run(hf, ids)[1], before)
    zeros = {site: torch.zeros(()) for site in plain(hf) if not place(hf, site).only_read}
    with edit(hf, zeros):
        assert torch.equal(run(hf, ids)[1], before)
    assert hooks_of(hf) == hooks


def test_a_contribution_that_is_zero_is_gone(first_hf, ids):
    """Where attention and MLP add zero, the stream leaves a block as it entered; heads of zero add zero."""
    hf = first_hf
    with edit(hf, {"attn_out.1": torch.zeros_like, "mlp_out.1": torch.zeros_like}):
        acts, _ = run(hf, ids, [s for s in plain(hf) if s.layer == 1])
    scale = getattr(hf.get_submodule(place(hf, "resid_post.1").module), "layer_scalar", 1.0)
    added = acts.get("per_layer_out.1", 0)
    torch.testing.assert_close(acts["resid_post.1"], (acts["resid_pre.1"] + added) * scale)
    if "resid_mid.1" in acts:
        assert torch.equal(acts["resid_mid.1"], acts["resid_pre.1"])
    for site in all_sites(hf, "z"):
        out = Site("attn_out", site.layer)
        projection = hf.get_submodule(place(hf, site).module)
        if projection.bias is not None:
            continue
        with edit(hf, {site: torch.zeros_like}):
            acts, _ = run(hf, ids, [out])
        assert acts[out].abs().max() == 0


def test_experts_are_those_that_the_router_chose(hf, ids):
    sites = all_sites(hf, "router_logits", "experts", "expert_weights", "expert_out", "shared_out")
    if not sites:
        return
    acts, _ = run(hf, ids, [*sites, *all_sites(hf, "mlp_out")])
    for site in all_sites(hf, "router_logits"):
        layer, scores = site.layer, acts[site]
        assert scores.shape[:2] == ids.shape
        if f"experts.{layer}" in acts:
            chosen, weights = acts[f"experts.{layer}"], acts[f"expert_weights.{layer}"]
            assert chosen.shape == weights.shape and chosen.shape[:2] == ids.shape
            assert torch.equal(chosen.sort(-1)[0], scores.topk(chosen.shape[-1], -1)[1].sort(-1)[0])
            out = Site("expert_out", layer)
            with torch.no_grad(), edit(hf, {f"expert_weights.{layer}": torch.zeros_like}):
                off, _ = run(hf, ids, [out, f"mlp_out.{layer}"])
            assert off[out].abs().max() == 0 or text(hf).model_type == "gpt_oss"
            assert not torch.equal(off[f"mlp_out.{layer}"], acts[f"mlp_out.{layer}"])
    try:
        with torch.no_grad():
            theirs = hf(input_ids=ids, use_cache=False, output_router_logits=True).router_logits
    except (TypeError, AttributeError):
        return
    if theirs is None or text(hf).model_type == "gemma4_text":
        return
    kept = [each for each in theirs if each is not None]
    assert len(kept) == len(all_sites(hf, "router_logits"))
    for site, wanted in zip(all_sites(hf, "router_logits"), kept, strict=True):
        assert torch.equal(acts[site].flatten(0, 1), wanted.view(-1, wanted.shape[-1]))


def test_the_parts_of_a_mixture_add_up(hf, ids):
    sites = all_sites(hf, "expert_out")
    kind = text(hf).model_type
    if not sites or kind == "gemma4_text":
        return
    acts, _ = run(hf, ids)
    for site in sites:
        whole = acts[site]
        shared = f"shared_out.{site.layer}"
        if shared in acts:
            block = hf.get_submodule(place(hf, f"mlp_out.{site.layer}").module)
            gate = getattr(block, "shared_expert_gate", None)
            read = hf.get_submodule(place(hf, f"resid_mid.{site.layer}").module)(acts[f"resid_mid.{site.layer}"])
            whole = whole + acts[shared] * (1 if gate is None else gate(read).sigmoid())
        times = place(hf, f"mlp_out.{site.layer}").times
        torch.testing.assert_close(times * whole, acts[f"mlp_out.{site.layer}"], atol=1e-5, rtol=1e-5)


#: What TransformerLens calls by our names and computes otherwise: the embedding before its factor, latent queries.
_OTHERS = {"granite": ("embed",), "granitemoe": ("embed",), "deepseek_v3": ("q",)}


_IN_LENS = ["smollm3", "ministral3", "olmo", "olmo3", "gemma", "gemma4_text", "glm4", "granite", "granitemoe", "phi"]
_IN_LENS += ["starcoder2", "stablelm", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "glm4_moe", "gpt_oss"]
_IN_LENS += ["deepseek_v3", "llama4_text"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", _IN_LENS)
def test_transformer_lens_agrees_at_every_site_that_it_has(kind, ids):
    hf = made(kind)
    bridge = to_transformer_lens(hf, tokenizer(), kind)
    named = [site for site in all_sites(hf) if KINDS[site.kind].lens and site.kind not in _OTHERS.get(kind, ())]
    hf.set_attn_implementation("eager")  # as TransformerLens computes it
    try:
        acts, logits = run(hf, ids, named)
    finally:
        hf.set_attn_implementation("sdpa" if hf._supports_sdpa else "eager")
    with torch.no_grad():
        seen, cache = bridge.run_with_cache(ids, attention_mask=torch.ones_like(ids))
    torch.testing.assert_close(seen, logits, atol=1e-4, rtol=1e-4)
    for site in named:
        torch.testing.assert_close(cache[site.lens], acts[site], atol=1e-4, rtol=1e-4, msg=str(site))


def test_a_view_that_would_install_packages_is_refused(monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda command, **_: pytest.fail(f"{command} was run"))
    for kind in ("gemma3", "gemma4"):
        with pytest.raises(NotApplicable, match="also made for images"):
            to_transformer_lens(made(kind), tokenizer(), kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["granite", "gpt_oss", "qwen2_moe", "gemma4", "qwen3_next", "deepseek_v3-mixed"])
def test_nnsight_agrees_at_every_site(kind, ids):
    hf = made(kind)
    hf.set_attn_implementation("eager")
    try:
        acts, _ = run(hf, ids, all_sites(hf))
        lm = to_nnsight(hf, tokenizer())
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for site in all_sites(hf):
            if site.layer not in (None, 1, 2):
                continue
            with torch.no_grad():  # noqa: SIM117 - nnsight runs the body itself
                with lm.trace(batch):
                    seen = nnsight_value(lm, site).save()
            torch.testing.assert_close(seen, acts[site], atol=1e-5, rtol=1e-5, msg=str(site))
    finally:
        hf.set_attn_implementation("sdpa" if hf._supports_sdpa else "eager")


@pytest.mark.parametrize("kind", ["qwen2_moe", "gpt_oss", "deepseek_v3-mixed", "granitemoe"])
def test_the_sites_of_experts_are_by_token_in_padded_batches_and_while_decoding(kind, ids):
    hf = made(kind)
    asked = all_sites(hf, "router_logits", "experts", "expert_weights", "expert_out", "shared_out")
    padded, mask = ids.clone(), torch.ones_like(ids)
    padded[1, :4], mask[1, :4] = 0, 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        with capture(hf, asked) as batch:
            hf(padded, attention_mask=mask, position_ids=positions)
        with capture(hf, asked) as alone:
            hf(ids[1:, 4:])
        with capture(hf, asked) as acts:
            text = hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
        with capture(hf, asked) as whole:
            hf(text[:, :-1])
        with capture(hf, asked, tokens=Tokens(positions=[-1])) as last:
            hf(text[:, :-1])
    for site in asked:
        assert batch[site].shape[:2] == ids.shape
        torch.testing.assert_close(batch[site][1, 4:], alone[site][0], atol=1e-5, rtol=1e-5, msg=str(site))
        torch.testing.assert_close(acts[site], whole[site], atol=1e-5, rtol=1e-5, msg=str(site))
        assert torch.equal(last[site], whole[site][:, -1]), site


def test_an_expert_is_switched_off_by_its_weight(ids):
    hf = made("mixtral")
    with torch.no_grad(), capture(hf, ["experts.1", "expert_out.1"], stop=False) as acts:
        hf(ids)
    off = acts["experts.1"] == acts["experts.1"][0, 0, 0]
    with edit(hf, {"expert_weights.1": lambda weights: weights.masked_fill(off, 0)}):
        without, _ = run(hf, ids, ["expert_out.1"])
    changed = (without["expert_out.1"] - acts["expert_out.1"]).abs().amax(-1) > 0
    assert torch.equal(changed, off.any(-1)) and changed.any() and not changed.all()


@pytest.mark.parametrize(
    "kind",
    ["gemma3", "granite", "cohere", "deepseek_v3", "qwen3_next", "llama4_text", "gptj", "nemotron", "opt", "ctrl"],
)
def test_the_layers_above_a_site_and_the_unembedding_give_the_models_logits(kind, ids):
    """In architectures of the table and in others, so that steering and the logit lens are the model's own there."""
    model = Model(made(kind) if kind in MODELS else tiny_model(tiny_config(kind)), tokenizer())
    acts, logits = run(model.hf, ids, ["resid_post.1", f"resid_post.{model.n_layers - 1}"])
    masks = causal_masks(model, torch.ones_like(ids).bool(), ids.shape[1])
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    with torch.no_grad():
        upper = UpperLayers(model, 1)(acts["resid_post.1"], attention_mask=masks, position_ids=positions)
    torch.testing.assert_close(upper, logits, atol=1e-4, rtol=1e-4)
    lens = model.unembed(acts[f"resid_post.{model.n_layers - 1}"])
    torch.testing.assert_close(lens, logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "scale"),
    [
        ("granite", "logits_scaling"),
        ("hyperclovax", "logits_scaling"),
        ("cohere", "logit_scale"),
        ("falcon_h1", "lm_head_multiplier"),
    ],
)
def test_the_unembedding_scales_logits_as_the_model_does(kind, scale, ids):
    model = Model(tiny_model(tiny_config(kind, **{scale: 0.25})), tokenizer())
    last = f"resid_post.{model.n_layers - 1}"
    acts, logits = run(model.hf, ids, [last])
    torch.testing.assert_close(model.unembed(acts[last]), logits, atol=1e-4, rtol=1e-4)


def test_blocks_that_read_more_than_the_stream_do_not_run_alone():
    with pytest.raises(NotApplicable, match="read an input of its own for each token"):
        UpperLayers(Model(made("gemma4"), tokenizer()), 1)

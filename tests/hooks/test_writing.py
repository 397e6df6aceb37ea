"""An edit does what it says, everywhere it says, and leaves nothing."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GptOssConfig, MixtralConfig, OlmoeConfig, Qwen3MoeConfig

from probe.errors import ProbeError
from probe.hooks import Tokens, capture, edit
from probe.models import Site, all_sites, load_model, place


def plain_sites(model):
    """Every site but the patterns, for which the attention is computed another way, to other last digits."""
    return [site for site in all_sites(model.hf) if site.kind != "pattern"]


def has_no_middle(model):
    """Where attention and MLP stand side by side there is nothing to edit between them, and that is what is said."""
    if not getattr(model.hf.config, "use_parallel_residual", False):
        return False
    said = r"no site 'resid_mid\.1': attention and MLP read the same"
    with pytest.raises(ProbeError, match=said), edit(model, {"resid_mid.1": torch.zeros(())}):
        pass
    return True


@torch.no_grad()
def test_adding_zero_changes_nothing(model, ids):
    before = model.hf(ids).logits
    for site in plain_sites(model):
        with edit(model, {site: torch.zeros(())}):
            assert torch.equal(model.hf(ids).logits, before), site
        with edit(model, {site: lambda hidden: hidden.clone()}):
            assert torch.equal(model.hf(ids).logits, before), site


@torch.no_grad()
def test_detach_restores_bit_for_bit(model, ids):
    before, weights = model.hf(ids).logits, {k: v.clone() for k, v in model.hf.state_dict().items()}
    changes = {site: torch.ones(()) for site in plain_sites(model)}
    with edit(model, changes):
        assert not torch.equal(model.hf(ids).logits, before)
    with pytest.raises(RuntimeError, match="by the user"), edit(model, changes):
        raise RuntimeError("by the user")
    assert torch.equal(model.hf(ids).logits, before)
    assert all(torch.equal(weights[k], v) for k, v in model.hf.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())


@torch.no_grad()
def test_a_shift_of_the_residual_stream_is_seen_by_all_that_follows(model, ids):
    """The three ways to shift the stream after block 1 agree, and the last layer's state gives the logits by hand."""
    shift = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    logits = []
    for site in ("resid_post.1", "mlp_out.1", "resid_pre.2"):
        with edit(model, {site: shift}), capture(model, ["resid_pre.2", "resid_post.3"], stop=False) as acts:
            logits.append(model.hf(ids).logits)
    torch.testing.assert_close(logits[1], logits[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits[2], logits[0], atol=1e-4, rtol=1e-4)
    with capture(model, "resid_post.1") as plain:
        model.hf(ids)
    assert torch.equal(acts["resid_pre.2"], plain["resid_post.1"] + shift)
    with edit(model, {"resid_post.3": lambda _: acts["resid_post.3"]}):
        torch.testing.assert_close(model.hf(ids).logits, logits[2])


@torch.no_grad()
def test_the_last_layer_by_hand(model, ids):
    """Adding v at the last resid_post gives unembed(norm(x + v))."""
    shift = 3 * torch.randn(ids.shape[1], model.d_model, generator=torch.Generator().manual_seed(2))
    with capture(model, "resid_post.3") as acts:
        model.hf(ids)
    norm = model.hf.get_submodule(place(model.hf, "final_norm").module)
    by_hand = model.hf.get_output_embeddings()(norm(acts["resid_post.3"] + shift))
    if cap := getattr(model.hf.config, "final_logit_softcapping", None):
        by_hand = cap * torch.tanh(by_hand / cap)
    with edit(model, {"resid_post.3": shift}):
        torch.testing.assert_close(model.hf(ids).logits, by_hand)


@torch.no_grad()
def test_an_edit_between_attention_and_mlp_moves_the_stream_and_not_only_the_mlp(model, ids):
    """At resid_mid the same shift of attn_out must follow, in both the stream and what the MLP reads."""
    if has_no_middle(model):
        return
    shift = torch.randn(model.d_model, generator=torch.Generator().manual_seed(3))
    read = ["resid_mid.1", "mlp_out.1", "resid_post.1"]
    with edit(model, {"attn_out.1": shift}), capture(model, read) as expected:
        model.hf(ids)
    for change in (shift, lambda hidden: hidden + shift):
        with edit(model, {"resid_mid.1": change}), capture(model, read) as acts:
            model.hf(ids)
        for site in read:
            torch.testing.assert_close(acts[site], expected[site], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_ablating_a_contribution(model, ids):
    if has_no_middle(model):
        return
    with edit(model, {"mlp_out.2": torch.zeros_like}), capture(model, ["resid_mid.2", "resid_post.2"]) as acts:
        model.hf(ids)
    assert torch.equal(acts["resid_post.2"], acts["resid_mid.2"])


@torch.no_grad()
def test_edits_nest_and_the_outer_acts_first(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    ids = torch.tensor([[5, 6, 7]])
    with capture(model, "resid_post.1") as plain:
        model.hf(ids)
    outer, inner = {"resid_post.1": torch.ones(32)}, {"resid_post.1": lambda hidden: 2 * hidden}
    with edit(model, outer), edit(model, inner), capture(model, "resid_post.1") as acts:
        model.hf(ids)
    assert torch.equal(acts["resid_post.1"], 2 * (plain["resid_post.1"] + 1))


@torch.no_grad()
def test_edited_generation_with_a_cache_is_edited_generation_without(model):
    """Persistent steering: a cached decoder and a whole forward pass with the same shift give the same tokens."""
    shift = torch.randn(model.d_model, generator=torch.Generator().manual_seed(4))
    ids = torch.tensor([[5, 6, 7, 8]])
    kinds = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 20, "do_sample": False, "eos_token_id": None}
    with edit(model, {Site("resid_post", 1): shift}):
        cached = model.hf.generate(ids, **kinds)
        logits = model.hf(cached).logits
    assert cached[0, 4:].tolist() == logits[0, 3:-1].argmax(-1).tolist()
    assert cached.tolist() != model.hf.generate(ids, **kinds).tolist()


def test_gradients_reach_a_vector(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    vector = torch.zeros(32, requires_grad=True)
    with edit(model, {"resid_post.1": vector}):
        model.hf(torch.tensor([[5, 6, 7]])).logits[0, -1, 9].backward()
    assert vector.grad is not None and vector.grad.abs().sum() > 0


def test_refusals(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    ids = torch.tensor([[5, 6, 7]])
    unused = {"embed": torch.zeros(32), "resid_mid.0": torch.zeros(32)}
    with pytest.raises(ProbeError, match=r"no forward pass reached embed, resid_mid\.0"), edit(model, unused):
        pass
    wide = {"resid_post.0": torch.zeros(2, 1, 32)}
    with (
        pytest.raises(ProbeError, match=r"edit at resid_post\.0 gives shape \[2, 3, 32\]; the model has \[1, 3, 32\]"),
        edit(model, wide),
    ):
        model.hf(ids)
    with pytest.raises(ProbeError, match="nothing to edit"), edit(model, {}):
        pass
    with pytest.raises(ProbeError, match="layers 0 to 3"), edit(model, {"resid_post.4": torch.zeros(32)}):
        pass
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())


def test_a_large_change_at_any_site_changes_the_logits(model, ids):
    """Read and written sites are the same tensors, and the rest of the pass uses them."""
    plain = model.hf(ids).logits

    def change(hidden):
        return hidden + 10 * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))

    for site in all_sites(model.hf):
        with torch.no_grad(), edit(model, {site: change}):
            assert (model.hf(ids).logits - plain).abs().max() > 1e-2, site


SMALL = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}
EXPERTS = {"num_experts_per_tok": 2, "num_key_value_heads": 2, "num_hidden_layers": 1, "eos_token_id": 1}


@pytest.mark.parametrize(
    ("config", "router"),
    [
        (MixtralConfig(**SMALL, **EXPERTS, num_local_experts=4), "mlp.gate"),
        (Qwen3MoeConfig(**SMALL, **EXPERTS, num_experts=4, moe_intermediate_size=16, head_dim=8), "mlp.gate"),
        (OlmoeConfig(**SMALL, **EXPERTS, num_experts=4), "mlp.gate"),
        (GptOssConfig(**SMALL, **EXPERTS, num_local_experts=4, head_dim=8), "mlp.router"),
    ],
    ids=lambda each: getattr(each, "model_type", ""),
)
def test_a_tensor_that_the_model_does_not_use_cannot_be_edited(config, router, ids):
    """A router returns its logits first, and the experts read the weights that it returns second."""
    hf = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        plain = hf(ids).logits
        for site in (f"model.layers.0.{router}", "model.rotary_emb:input"):
            with (
                pytest.raises(ProbeError, match=f"an edit at {site} would change nothing"),
                edit(hf, {site: torch.zeros_like}),
            ):
                pass
        with capture(hf, "model.layers.0", stop=False) as acts:
            hf(ids)
            for site in (
                "model.layers.0.mlp",
                "model.layers.0.self_attn",
                "model.rotary_emb",
                f"model.layers.0.{router}:input",
            ):
                before = acts["model.layers.0"]
                with edit(hf, {site: lambda hidden: 2 * hidden + 1}):
                    assert acts["model.layers.0"] is before, "the trial is no pass of the capture"
                    assert not torch.equal(hf(ids).logits, plain), site
    assert torch.equal(hf(ids).logits, plain)


def test_the_trunk_and_modules_without_a_tensor(tiny_folder, ids):
    model = load_model(tiny_folder("llama", "letters"), device="cpu")
    with torch.no_grad():
        with edit(model, {"model:output": torch.zeros_like}):
            assert not model.hf(ids).logits.any(), "the trunk's output has a name"
        with (
            edit(model, {"model.layers.1.mlp:input": torch.zeros_like}),
            capture(model, "mlp_out.1", stop=False) as acts,
        ):
            model.hf(ids)
        assert not acts["mlp_out.1"].any()


def test_an_edit_of_logits_that_are_not_computed_is_refused(tiny_folder, ids):
    model = load_model(tiny_folder("llama", "letters"), device="cpu")
    early = edit(model, {"logits": torch.zeros_like}, tokens=Tokens(positions=[0, 3]))
    with pytest.raises(ProbeError, match="computed logits at the last tokens only"), torch.no_grad(), early:
        model.hf(ids, logits_to_keep=1)
    with torch.no_grad(), edit(model, {"logits": torch.zeros_like}, tokens=Tokens(phase="prompt")):
        assert not model.hf(ids, logits_to_keep=1).logits.any()

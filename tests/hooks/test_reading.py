"""What is captured is what the model had there: against transformers, by hand, under padding; nothing more is run."""

import pytest
import torch

from probe.errors import ProbeError
from probe.hooks import Tokens, capture, edit
from probe.hooks.attach import attach
from probe.hooks.passes import Stopped
from probe.models import Site, all_sites, load_model, place


def plain_sites(model):
    """Every site but the patterns, for which the attention is computed another way, to other last digits."""
    return [site for site in all_sites(model.hf) if site.kind != "pattern"]


def hooks_of(model) -> int:
    """How many hooks hang anywhere in the model."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())


@torch.no_grad()
def test_residual_stream_is_transformers_own(model, ids):
    states = model.hf(ids, output_hidden_states=True).hidden_states
    with capture(model, plain_sites(model), stop=False) as acts:
        logits = model.hf(ids).logits
    for layer in range(model.n_layers):
        assert torch.equal(acts[f"resid_pre.{layer}"], states[layer])
        if layer + 1 < model.n_layers:
            assert torch.equal(acts[Site("resid_post", layer)], states[layer + 1])
    assert torch.equal(acts["final_norm"], states[-1])
    torch.testing.assert_close(model.unembed(acts[f"resid_post.{model.n_layers - 1}"]), logits)
    capped = model.hf.get_output_embeddings()(acts["final_norm"])
    if cap := getattr(model.hf.config, "final_logit_softcapping", None):
        capped = cap * torch.tanh(capped / cap)
    torch.testing.assert_close(capped, logits)


@torch.no_grad()
def test_contributions_add_up_to_the_residual_stream(model, ids):
    with capture(model, plain_sites(model), stop=False) as acts:
        model.hf(ids)
    for i in range(model.n_layers):
        mid = acts[f"resid_pre.{i}"] + acts[f"attn_out.{i}"]
        if f"resid_mid.{i}" in acts:
            torch.testing.assert_close(acts[f"resid_mid.{i}"], mid)
        else:
            assert model.hf.config.use_parallel_residual
        torch.testing.assert_close(acts[f"resid_post.{i}"], mid + acts[f"mlp_out.{i}"])
        if i:
            assert torch.equal(acts[f"resid_pre.{i}"], acts[f"resid_post.{i - 1}"])


@torch.no_grad()
def test_stop_runs_no_layer_above_and_changes_no_state(model, ids):
    ran = []
    for i, block in enumerate(model.layers):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    asked = ["resid_post.1", "attn_out.0", "embed"]
    with capture(model, asked) as acts:
        assert isinstance(model.hf(ids), Stopped)
        after = "the block goes on"
    assert after and ran in ([0], [0, 1])  # the block of the deepest site is left at that site
    with capture(model, asked, stop=False) as whole:
        assert model.hf(ids).logits.shape[:2] == ids.shape
    assert ran[-model.n_layers :] == [0, 1, 2, 3]
    for site in asked:
        assert torch.equal(acts[site], whole[site])


@torch.no_grad()
def test_stop_works_through_the_trunk_and_pass_after_pass(model, ids):
    with capture(model, "attn_out.2") as acts:
        assert isinstance(model.hf.base_model(ids), Stopped)
        first = acts["attn_out.2"]
        assert isinstance(model.hf(ids[:1, :5]), Stopped)
        assert acts["attn_out.2"].shape == (1, 5, model.d_model)
    torch.testing.assert_close(first[:1, :5], acts["attn_out.2"])


@torch.no_grad()
def test_nothing_is_left_behind(model, ids):
    before, hooks = model.hf(ids).logits, hooks_of(model)
    with capture(model, plain_sites(model)):
        model.hf(ids)
    with pytest.raises(RuntimeError, match="by the user"), capture(model, "resid_post.0"):
        raise RuntimeError("by the user")
    assert hooks_of(model) == hooks
    assert "forward" not in vars(model.hf) and "forward" not in vars(model.hf.base_model)
    assert torch.equal(model.hf(ids).logits, before)


def pad(ids: torch.Tensor, lengths: list[int], side: str, pad_id: int) -> tuple[torch.Tensor, ...]:
    """The first ``lengths`` tokens of each row, padded on one side: ids, mask, positions."""
    padded, mask = torch.full_like(ids, pad_id), torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        where = slice(0, length) if side == "right" else slice(ids.shape[1] - length, None)
        padded[row, where], mask[row, where] = ids[row, :length], 1
    return padded, mask, (mask.cumsum(1) - 1).clamp(min=0)


@torch.no_grad()
def test_a_padded_batch_gives_what_single_rows_give(model, ids):
    lengths = [21, 9, 14]
    asked = plain_sites(model)
    batches = []
    for side in ("left", "right"):
        padded, mask, positions = pad(ids, lengths, side, model.pad_id)
        with capture(model, asked) as batch:
            model.hf(padded, attention_mask=mask, position_ids=positions)
        batches.append((side, mask.bool(), batch))
    for row, length in enumerate(lengths):
        with capture(model, asked) as single:
            model.hf(ids[row : row + 1, :length])
        for site in asked:
            size = single[site][0].flatten(1).norm(dim=1)
            for side, mask, batch in batches:
                apart = (batch[site][row][mask[row]] - single[site][0]).flatten(1).norm(dim=1)
                assert (apart <= 1e-5 * size).all(), (site, side)


@torch.no_grad()
def test_a_site_that_does_not_fire_raises(model, ids):
    said = r"no forward pass reached resid_post\.1; call the model"
    with pytest.raises(ProbeError, match=said), capture(model, "resid_post.1"):
        pass
    with pytest.raises(ProbeError, match=r"reached resid_post\.3"), capture(model, ["resid_post.3", "embed"]):
        model.hf.get_input_embeddings()(ids)


def test_reading_what_was_not_asked_for_says_so(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    with capture(model, "resid_post.1") as acts:
        with pytest.raises(ProbeError, match="seen: none yet"):
            _ = acts["resid_post.1"]
        model.hf(torch.tensor([[5, 6]]))
    said = r"nothing was captured at resid_post\.2; asked for: resid_post\.1; seen: resid_post\.1"
    with pytest.raises(ProbeError, match=said):
        _ = acts["resid_post.2"]
    assert repr(acts) == "Captured(resid_post.1: [1, 2, 32])"


def test_unknown_sites_are_refused_before_anything_runs(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    with pytest.raises(ProbeError, match="layers 0 to 3"), capture(model, ["embed", "resid_post.9"]):
        pass
    assert hooks_of(model) == 0


@torch.no_grad()
def test_heads_write_what_the_attention_adds(model, ids):
    """z through the output projection is the attention's contribution, before any norm that follows it."""
    with capture(model, ["z.1", "attn_out.1"], stop=False) as acts:
        model.hf(ids)
    reader = model.hf.get_submodule(place(model.hf, "z.1").module)
    out = reader(acts["z.1"].flatten(-2))
    if model.hf.config.model_type in ("gemma2", "gemma3_text", "olmo2"):
        out = model.layers[1].post_attention_layernorm(out)
    torch.testing.assert_close(acts["attn_out.1"], out)


@torch.no_grad()
def test_pattern_weighs_values_and_sums_to_one(model, ids):
    before = model.hf.config._attn_implementation
    with capture(model, ["pattern.2", "z.2", "v.2"], stop=False) as acts:
        logits = model.hf(ids).logits
    pattern, v = acts["pattern.2"], acts["v.2"]
    torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))
    assert pattern.triu(1).abs().max() == 0
    v = v.repeat_interleave(pattern.shape[1] // v.shape[2], 2).transpose(1, 2)
    torch.testing.assert_close((pattern @ v).transpose(1, 2), acts["z.2"])
    assert model.hf.config._attn_implementation == before
    torch.testing.assert_close(model.hf(ids).logits, logits, atol=1e-4, rtol=1e-4)
    model.hf.set_attn_implementation("eager")
    torch.testing.assert_close(model.hf(ids, output_attentions=True).attentions[2], pattern)


@torch.no_grad()
def test_neurons_write_what_the_mlp_adds(model, ids):
    with capture(model, ["mlp_pre.1", "mlp_post.1", "mlp_out.1"], stop=False) as acts:
        model.hf(ids)
    reader = model.hf.get_submodule(place(model.hf, "mlp_post.1").module)
    out = reader(acts["mlp_post.1"])
    if model.hf.config.model_type in ("gemma2", "gemma3_text", "olmo2"):
        out = model.layers[1].post_feedforward_layernorm(out)
    torch.testing.assert_close(acts["mlp_out.1"], out)
    assert acts["mlp_pre.1"].shape == acts["mlp_post.1"].shape


@torch.no_grad()
def test_any_module_by_its_path(model, ids):
    path = place(model.hf, "mlp_out.1").module
    with capture(model, [path, f"{path}:input", "mlp_out.1"], stop=False) as acts:
        model.hf(ids)
    assert torch.equal(acts[path], acts["mlp_out.1"])
    module = model.hf.get_submodule(path)
    assert torch.equal(module(acts[f"{path}:input"]), acts[path])


@torch.no_grad()
@pytest.mark.parametrize("chunk", [None, 4])
def test_generation_gives_what_one_pass_over_the_text_gives(model, ids, chunk):
    """On a cache, token by token or with the prompt in chunks: joined, the states of an uncached pass."""
    asked = ["resid_post.1", "z.2", "q.1", "mlp_post.3"]
    kinds = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    with capture(model, asked) as acts:
        text = model.hf.generate(ids, prefill_chunk_size=chunk, **kinds)
    assert text.shape[1] == ids.shape[1] + 5
    with capture(model, asked) as whole:
        model.hf(text[:, :-1])
    for site in asked:
        torch.testing.assert_close(acts[site], whole[site], atol=2e-5, rtol=1e-4)
        assert torch.equal(acts.latest(site), acts[site][:, -1:])


def test_states_are_detached_unless_gradients_are_asked_for(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    embeds = torch.randn(1, 4, model.d_model, requires_grad=True)
    with capture(model, "resid_post.2") as acts:
        model.hf(inputs_embeds=embeds)
    assert not acts["resid_post.2"].requires_grad
    with pytest.raises(ProbeError, match="capture it with grad=True"):
        acts.grad("resid_post.2")
    with capture(model, "resid_post.2", grad=True) as acts:
        model.hf(inputs_embeds=embeds)
    with pytest.raises(ProbeError, match="no gradient has reached"):
        acts.grad("resid_post.2")
    acts["resid_post.2"].sum().backward()
    assert embeds.grad is not None and embeds.grad.abs().sum() > 0


def test_gradients_at_sites_are_those_of_a_small_step(model, ids):
    """The model's weights are frozen; the derivative along v is the slope of the logit as v is added."""
    asked = ["resid_post.0", "z.1", "attn_out.2", "q.2"]
    with capture(model, asked, stop=False, grad=True) as acts:
        model.hf(ids).logits[0, -1, 7].backward()
    model = model.hf.double()
    for site in asked:
        grad = acts.grad(site)
        v = torch.randn(grad.shape[2:], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        values = []
        for step in (1e-4, -1e-4):
            with torch.no_grad(), edit(model, {site: step * v}):
                values.append(model(ids).logits[0, -1, 7])
        slope = (values[0] - values[1]) / 2e-4
        torch.testing.assert_close((grad[0].double() * v).sum(), slope, atol=2e-3, rtol=2e-3, msg=site)


def test_nothing_is_captured_for_nothing(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    with pytest.raises(ProbeError, match="nothing to capture"), capture(model, []):
        pass
    with pytest.raises(ProbeError, match="needs tokens"), capture(model, "embed", pool="mean"):
        pass
    with (
        pytest.raises(ProbeError, match=r"pattern\.0 has one value for each pair"),
        capture(model, "pattern.0", tokens=Tokens(positions=0)),
    ):
        pass


@torch.no_grad()
def test_one_act_attached_twice_to_a_pattern_comes_off_once_each_time(model, ids):
    before, seen = model.hf.config._attn_implementation, []

    def act(pattern):
        seen.append(pattern)

    first, second = attach(model.hf, Site("pattern", 1), act), attach(model.hf, Site("pattern", 1), act)
    first()
    model.hf(ids)
    assert len(seen) == 1
    second()
    assert model.hf.config._attn_implementation == before

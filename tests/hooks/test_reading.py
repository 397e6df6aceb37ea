"""What is captured is what the model had there: against transformers, by hand, under padding; nothing more is run."""

import pytest
import torch

from probe._errors import ProbeError
from probe.hooks import capture
from probe.models import Site, all_sites, load_model


def hooks_of(model) -> int:
    """How many hooks hang anywhere in the model."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())


@torch.no_grad()
def test_residual_stream_is_transformers_own(model, ids):
    states = model.hf(ids, output_hidden_states=True).hidden_states
    with capture(model, all_sites(model.hf), stop=False) as acts:
        logits = model.hf(ids).logits
    for layer in range(model.n_layers):
        assert torch.equal(acts[f"resid_pre.{layer}"], states[layer])
        if layer + 1 < model.n_layers:
            assert torch.equal(acts[Site("resid_post", layer)], states[layer + 1])
    assert torch.equal(acts["final_norm"], states[-1])
    capped = model.hf.get_output_embeddings()(acts["final_norm"])
    if cap := getattr(model.hf.config, "final_logit_softcapping", None):
        capped = cap * torch.tanh(capped / cap)
    torch.testing.assert_close(capped, logits)


@torch.no_grad()
def test_contributions_add_up_to_the_residual_stream(model, ids):
    with capture(model, all_sites(model.hf), stop=False) as acts:
        model.hf(ids)
    for i in range(model.n_layers):
        torch.testing.assert_close(acts[f"resid_mid.{i}"], acts[f"resid_pre.{i}"] + acts[f"attn_out.{i}"])
        torch.testing.assert_close(acts[f"resid_post.{i}"], acts[f"resid_mid.{i}"] + acts[f"mlp_out.{i}"])
        if i:
            assert torch.equal(acts[f"resid_pre.{i}"], acts[f"resid_post.{i - 1}"])


@torch.no_grad()
def test_stop_runs_no_layer_above_and_changes_no_state(model, ids):
    ran = []
    for i, block in enumerate(model.layers):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    asked = ["resid_post.1", "attn_out.0", "embed"]
    with capture(model, asked) as acts:
        assert model.hf(ids) is None
        after = "the block goes on"
    assert after and ran in ([0], [0, 1])  # the block of the deepest site is left at that site
    with capture(model, asked, stop=False) as whole:
        assert model.hf(ids).logits.shape[:2] == ids.shape
    assert ran[-model.n_layers :] == [0, 1, 2, 3]
    for site in asked:
        assert torch.equal(acts[site], whole[site])


@torch.no_grad()
def test_stop_works_through_the_trunk_and_pass_after_pass(model, ids):
    with capture(model, "resid_mid.2") as acts:
        assert model.hf.base_model(ids) is None
        first = acts["resid_mid.2"]
        assert model.hf(ids[:1, :5]) is None
        assert acts["resid_mid.2"].shape == (1, 5, model.d_model)
    torch.testing.assert_close(first[:1, :5], acts["resid_mid.2"])


@torch.no_grad()
def test_nothing_is_left_behind(model, ids):
    before, hooks = model.hf(ids).logits, hooks_of(model)
    with capture(model, all_sites(model.hf)):
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
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_gives_what_single_rows_give(model, ids, side):
    lengths = [21, 9, 14]
    padded, mask, positions = pad(ids, lengths, side, model.pad_id)
    asked = [site for site in all_sites(model.hf) if site.kind != "final_norm"]
    with capture(model, asked) as batch:
        model.hf(padded, attention_mask=mask, position_ids=positions)
    for row, length in enumerate(lengths):
        with capture(model, asked) as single:
            model.hf(ids[row : row + 1, :length])
        for site in asked:
            torch.testing.assert_close(batch[site][row][mask[row].bool()], single[site][0], atol=1e-5, rtol=1e-5)


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


def test_generation_is_captured_step_by_step(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    with torch.no_grad(), capture(model, "resid_post.1", stop=False) as acts:
        ids = torch.tensor([[5, 6, 7]])
        model.hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3)
        assert acts["resid_post.1"].shape == (1, 1, model.d_model)


def test_gradients_reach_a_captured_state(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    embeds = torch.randn(1, 4, model.d_model, requires_grad=True)
    with capture(model, "resid_post.2") as acts:
        model.hf(inputs_embeds=embeds)
    acts["resid_post.2"].sum().backward()
    assert embeds.grad is not None and embeds.grad.abs().sum() > 0

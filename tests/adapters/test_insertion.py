"""An SAE inside a model: what changes, where, and whether gradients cross it."""

import pytest
import torch

from probe.adapters import Ablate, Boost, Noise, Objective, Replace, inserted
from probe.adapters.sae.insertion import outliers
from probe.errors import ProbeError
from probe.hooks import Apply, capture, edit
from tests.adapters.conftest import random_topk

IDS = torch.tensor([[1, 8, 9, 30, 31, 32, 40], [1, 11, 12, 50, 51, 52, 60]])
SITE = "resid_post.1"


@pytest.fixture
def sae(model):
    return random_topk(d_in=model.d_model)


def run(model, insertion=None, **more):
    with torch.no_grad():
        if insertion is None:
            with capture(model, SITE, stop=False) as acts:
                return model.hf(IDS).logits, acts[SITE]
        with inserted(model, insertion, **more), capture(model, SITE, stop=False) as acts:
            return model.hf(IDS).logits, acts[SITE]


def test_the_reconstruction_takes_the_state_s_place_but_at_special_tokens(model, sae):
    assert 1 in model.tokenizer.all_special_ids
    plain, state = run(model)
    logits, changed = run(model, Replace(sae))
    assert torch.equal(changed[:, 0], state[:, 0])
    torch.testing.assert_close(changed[:, 1:], sae(state[:, 1:]))
    assert torch.equal(logits[:, 0], plain[:, 0]) and (logits[:, 1:] - plain[:, 1:]).abs().max() > 1e-3
    assert torch.equal(run(model)[0], plain), "afterwards it is what it was"


def test_with_its_error_it_changes_nothing_and_no_gradient_says_otherwise(model, sae):
    """KL to the model without it is zero, and so is its gradient, though it crosses the SAE."""
    plain, _ = run(model)
    logits, _ = run(model, Replace(sae, keep_error=True))
    torch.testing.assert_close(logits, plain, atol=1e-5, rtol=1e-5)
    weight = model.layers[0].parameters().__next__().requires_grad_(True)
    with inserted(model, Replace(sae, keep_error=True)):
        student = model.hf(IDS).logits.log_softmax(-1)
    kl = torch.nn.functional.kl_div(student, plain.log_softmax(-1), log_target=True, reduction="sum")
    kl.backward()
    assert abs(kl.item()) < 1e-6 and weight.grad.abs().max() < 1e-4
    weight.requires_grad_(False)
    weight.grad = None


@pytest.mark.parametrize("kind", [Replace, Noise])
@pytest.mark.parametrize("through", [False, True])
def test_gradients_cross_it_or_do_not(llama, kind, through):
    sae = random_topk()
    below, above = (next(llama.layers[i].parameters()).requires_grad_(True) for i in (0, 2))
    with inserted(llama, kind(sae, through=through), tokens=None):
        llama.hf(IDS[:, 1:]).logits.square().sum().backward()
    assert above.grad is not None and above.grad.abs().max() > 0
    assert (below.grad is not None and below.grad.abs().max() > 0) == through


def test_noise_is_as_long_as_the_error(model, sae):
    _, state = run(model)
    _, changed = run(model, Noise(sae, seed=3))
    error = (state - sae(state)).norm(dim=-1)
    torch.testing.assert_close((changed - state).norm(dim=-1)[:, 1:], error[:, 1:], rtol=1e-4, atol=1e-4)
    assert torch.equal(run(model, Noise(sae, seed=3))[1], changed)
    assert not torch.allclose(run(model, Noise(sae, seed=4))[1], changed)
    assert not torch.allclose(run(model, Noise(sae))[1], run(model, Noise(sae))[1]), "new noise in each pass"


def test_chosen_latents_are_switched_off_or_raised(model, sae):
    _, state = run(model)
    acts = sae.encode(state)
    chosen = tuple(acts[:, 1:].sum((0, 1)).topk(3).indices.tolist())
    _, off = run(model, Ablate(sae, chosen))
    expected = state - acts[..., list(chosen)] @ sae.W_dec[list(chosen)]
    torch.testing.assert_close(off[:, 1:], expected[:, 1:], atol=1e-5, rtol=1e-5)
    _, up = run(model, Boost(sae, chosen, 50.0))
    expected = state + (acts[..., list(chosen)].clamp(min=50.0) - acts[..., list(chosen)]) @ sae.W_dec[list(chosen)]
    torch.testing.assert_close(up[:, 1:], expected[:, 1:], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(run(model, Boost(sae, chosen, 0.0))[1], state, atol=1e-5, rtol=1e-5)


def test_attention_sinks_are_left_alone(llama):
    """One token many times as long as the others of its text: no mask names it, and it stays as it is."""
    sae = random_topk(site="blocks.1.hook_resid_post")
    far = 300 * torch.randn(32, generator=torch.Generator().manual_seed(3))

    def lengthened(state):
        state = state.clone()
        state[:, 0] = far
        return state

    ids = torch.tensor([[8, 9, 30, 31, 32, 33]])
    everywhere = torch.ones(ids.shape, dtype=torch.bool)
    longer = edit(llama, {"resid_post.1": Apply(lengthened)})
    instead = inserted(llama, Replace(sae), tokens=everywhere, texts=torch.zeros_like(ids))
    with torch.no_grad(), longer, instead, capture(llama, "resid_post.1", stop=False) as acts:
        llama.hf(ids)
    state = acts["resid_post.1"][0]
    torch.testing.assert_close(state[0], far)
    with torch.no_grad(), capture(llama, "resid_post.1", stop=False) as plain:
        llama.hf(ids)
    torch.testing.assert_close(state[1:], sae(plain["resid_post.1"][0])[1:], atol=1e-4, rtol=1e-4)


def test_outliers_are_those_of_a_text_however_it_is_packed():
    states = torch.randn(7, 8, generator=torch.Generator().manual_seed(0))
    states[0] *= 100
    states[4:] *= 1000  # another text, all of it long
    packed = outliers(states[None], torch.tensor([[0, 0, 0, 0, 1, 1, -1]]))
    assert packed.tolist() == [[True, *[False] * 6]]
    assert outliers(states[None, :4], torch.zeros(1, 4, dtype=torch.long)).tolist() == packed[:, :4].tolist()
    assert not outliers(states[:, None], torch.zeros(7, 1, dtype=torch.long) + torch.arange(7)[:, None]).any()


def test_latents_that_an_sae_has_not_are_refused():
    sae = random_topk()
    size = sae.cfg.d_sae
    for latents in ((size,), (0, -1)):
        with pytest.raises(ProbeError, match=f"no latent {latents[-1]}; its numbers are 0 to {size - 1}"):
            Boost(sae, latents, 1.0)
        with pytest.raises(ProbeError, match=f"no latent {latents[-1]}"):
            Ablate(sae, latents)
        with pytest.raises(ProbeError, match=f"no latent {latents[-1]}"):
            Objective("feature-match", sae, latents=latents, value=1.0)

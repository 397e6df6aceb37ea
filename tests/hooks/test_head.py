"""Losses from chunks of logits are those of the whole, for every architecture, with their caps and scales."""

import pytest
import torch

from probe.hooks import Head, checkpointed, cross_entropy, score_logits, states_of
from probe.models import Model, ModelConfig, load_model
from tests.tiny_models import tiny_config, tiny_model

IDS = torch.randint(6, 60, (2, 11), generator=torch.Generator().manual_seed(0))


def places():
    counts = torch.zeros(IDS.shape, dtype=torch.bool)
    counts[0, 3:9] = counts[1, 1:10] = True
    return counts, IDS.roll(-1, 1)[counts]


@pytest.fixture
def model(any_arch, tiny_folder):
    return load_model(ModelConfig(str(tiny_folder(any_arch))), device="cpu")


#: Logits that are capped or scaled after the head, and states that are scaled before it.
SCALED = {
    "gemma2": {"final_logit_softcapping": 2.0},
    "cohere": {"logit_scale": 0.4},
    "granite": {"logits_scaling": 3.0},
    "minicpm3": {},
}


@pytest.mark.parametrize("kind", SCALED)
def test_caps_and_scales_are_the_model_s_own(kind, letters):
    model = Model(tiny_model(tiny_config(kind, **SCALED[kind])), letters)
    logits = model.hf(input_ids=IDS, use_cache=False).logits
    states = states_of(model, input_ids=IDS, use_cache=False)
    torch.testing.assert_close(Head(model)(states), logits, rtol=0, atol=0)
    counts, targets = places()
    expected = torch.nn.functional.cross_entropy(logits[counts].float(), targets, reduction="none")
    for size in (1, 4, 100):
        found = score_logits(cross_entropy, [(Head(model), states)], counts, targets, size=size)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_does_not_depend_on_chunks_or_checkpoints_and_the_model_is_as_it_was(model):
    counts, targets = places()
    shift = torch.nn.Parameter(torch.zeros(model.d_model))
    embedding = model.hf.get_input_embeddings()

    def gradient(size: int) -> torch.Tensor:
        shift.grad = None
        states = states_of(model, inputs_embeds=embedding(IDS).detach() + shift, use_cache=False)
        losses = score_logits(cross_entropy, [(Head(model), states)], counts, targets, size=size)
        losses.sum().backward()
        return torch.cat([losses.detach(), shift.grad])

    whole = gradient(100)
    chunks = gradient(4)
    torch.testing.assert_close(chunks, whole, rtol=1e-5, atol=1e-6 * whole.abs().max().item())

    def state() -> list:
        return [
            (set(vars(module)), vars(module).get("gradient_checkpointing"), len(module._forward_hooks))
            for module in model.hf.modules()
        ]

    before = state()
    for block in model.layers:
        block.training = True  # the block alone, so that there is no dropout
    runs = []
    with checkpointed(model):
        handles = [block.register_forward_hook(lambda *_: runs.append(None)) for block in model.layers]
        inner = next(child for child in model.layers[0].modules() if "Norm" in type(child).__name__)
        handles.append(inner.register_forward_hook(lambda *_: runs.append(None)))
        torch.testing.assert_close(gradient(4), chunks, rtol=1e-5, atol=1e-6 * whole.abs().max().item())
    for handle in handles:
        handle.remove()
    for block in model.layers:
        block.training = False
    assert len(runs) > model.n_layers + 1, "the backward pass ran a block again"
    assert state() == before

"""The logit lens ends at the model's own output; direct parts add up, and are what the last norm's algebra says."""

import pytest
import torch

from probe.circuits import EdgeLens, direct_attribution, logit_lens
from probe.errors import ProbeError
from probe.models import ModelConfig, load_model
from tests.circuits.conftest import drawn_pairs


def test_the_lens_ends_at_the_models_output(tiny_folder, any_arch):
    model = load_model(ModelConfig(str(tiny_folder(any_arch))), device="cpu")
    ids = drawn_pairs().clean[0][0]
    found = logit_lens(model, ids)
    log_p = model.hf(ids[None]).logits[0].log_softmax(-1)
    torch.testing.assert_close(found.target[-1], log_p[:-1].gather(1, ids[1:, None])[:, 0], atol=1e-4, rtol=1e-4)
    assert torch.equal(found.top[-1], log_p.argmax(-1))
    torch.testing.assert_close(found.entropy[-1], -(log_p.exp() * log_p).sum(-1), atol=1e-4, rtol=1e-4)
    assert found.said[-1][0] == model.decode([int(found.top[-1, 0])]) and "block 0" in found._repr_html_()


def test_the_lens_is_the_same_in_a_small_budget(tiny_folder):
    model, ids = load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu"), drawn_pairs().clean[0][0]
    whole = logit_lens(model, ids)
    model.memory = 4 * 16 * 4 * model.n_embeddings  # four tokens at a time, of nine
    found = logit_lens(model, ids)
    assert torch.equal(found.top, whole.top) and found.target.shape == (model.n_layers, len(ids) - 1)
    for name in ("target", "entropy", "log_prob"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gpt2"])
def test_parts_add_up_to_the_difference(tiny_folder, name):
    model = load_model(ModelConfig(str(tiny_folder(name))), device="cpu")
    lens, pairs = EdgeLens(model), drawn_pairs()
    ids, _, right, wrong = next(iter(pairs))
    parts = direct_attribution(lens, ids, right, wrong)
    logits, rows = model.hf(ids).logits[:, -1], torch.arange(len(ids))
    torch.testing.assert_close(
        torch.stack(list(parts.values())).sum(0), logits[rows, right] - logits[rows, wrong], atol=1e-4, rtol=1e-4
    )
    assert set(parts) == {*lens.graph.writers, "constant"}
    if name != "gpt2":
        assert parts["constant"].abs().max() < 1e-4, "without biases there is nothing else that writes"


def test_parts_are_what_the_norm_makes_of_each_writer(llama):
    lens, pairs = EdgeLens(llama), drawn_pairs()
    ids, _, right, wrong = next(iter(pairs))
    parts = direct_attribution(lens, ids, right, wrong)
    written = lens.written(ids)[:, :, -1]
    norm, unembed = llama.hf.model.norm, llama.hf.lm_head.weight
    scale = (written.sum(0).square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()
    expected = (written * norm.weight * scale * (unembed[right] - unembed[wrong])).sum(-1)
    torch.testing.assert_close(
        torch.stack([parts[name] for name in lens.graph.writers]), expected, atol=1e-5, rtol=1e-4
    )


def test_a_norm_of_another_kind_is_refused(llama, monkeypatch):
    class Odd(torch.nn.Module):
        def __init__(self, norm):
            super().__init__()
            self.weight, self.norm = norm.weight, norm

        def forward(self, hidden):
            return torch.tanh(self.norm(hidden))

    lens, (ids, _, right, wrong) = EdgeLens(llama), next(iter(drawn_pairs()))
    monkeypatch.setattr(llama.hf.model, "norm", Odd(llama.hf.model.norm))
    with pytest.raises(ProbeError, match="not linear for a fixed scale"):
        direct_attribution(lens, ids, right, wrong)

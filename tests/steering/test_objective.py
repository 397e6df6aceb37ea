"""Training steers as decoding does: the logits the loss sees are those of a cached step, under either convention."""

import pytest
import torch

from probe.hooks import Runner, force
from probe.models import ModelConfig, load_model
from probe.steering import BehaviourVectors, FixedVectors, GateBatch, SteeringConfig, learn_vectors
from probe.steering.objective import GateLoss
from probe.steering.prefix import resid_below

PROMPTS = [list(range(6, 17)), list(range(30, 34))]
TEXTS = [list(range(40, 64)), list(range(70, 80))]
GATES = [[0, 3, 4, 20], [9]]
LAYER = 1


@pytest.mark.parametrize("persistent", [False, True])
def test_loss_is_that_of_decoding_step_by_step(some_arch, tiny_folder, persistent):
    """Rows of different length, texts longer than the sliding window, several gates in one row."""
    model = load_model(ModelConfig(str(tiny_folder(some_arch, tokenizer="letters"))), device="cpu")
    vectors = BehaviourVectors(2, model.d_model, LAYER, persistent=persistent)
    vectors.directions.data = torch.randn(2, model.d_model, generator=torch.Generator().manual_seed(0))
    forced = force(model, PROMPTS, TEXTS)
    gate = torch.zeros_like(forced.emitted)
    for row, positions in enumerate(GATES):
        gate[row, positions] = True
    behaviour = (torch.arange(gate.numel()) % 2).view(gate.shape)
    target = forced.ids.gather(1, forced.predicts + 1)
    batch = GateBatch(forced, gate, behaviour, target)
    scored = GateLoss(model, vectors)(batch, resid_below(model, batch, LAYER))
    summed, n = scored.losses.sum(), len(scored.losses)
    keeping = GateLoss(model, vectors, keep=2**20)
    for _ in range(2):
        assert torch.equal(keeping(batch, resid_below(model, batch, LAYER)).losses, scored.losses)

    expected = 0.0
    for row, (prompt, text) in enumerate(zip(PROMPTS, TEXTS, strict=True)):
        runner = Runner(model, [prompt], len(text) + 1, steer=LAYER)
        step = runner.prefill()
        for j, token in enumerate(text):
            logits = step.logits
            if gate[row, j]:
                resid, kind = step.resid[LAYER], behaviour[row, j : j + 1]
                with torch.no_grad():
                    shift = vectors.shift(resid, vectors.strength(resid, kind), kind)
                logits = runner.rerun(resid + shift, torch.tensor([0]), persistent=persistent)
            if gate[row, j]:
                expected -= logits[0].log_softmax(-1)[token].item()
            step = runner.step(torch.tensor([token]))
    assert n == 5
    assert summed.item() == pytest.approx(expected, abs=2e-3)
    summed.backward()
    assert vectors.directions.grad is not None and vectors.directions.grad.abs().max() > 0


@pytest.mark.parametrize("persistent", [False, True])
def test_no_gate_is_no_loss_and_learning_goes_on(tiny_folder, persistent):
    """Two models that never disagree: nothing is learned, and nothing breaks."""
    model = load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters"))), device="cpu")
    forced = force(model, PROMPTS, TEXTS)
    batch = GateBatch(forced, torch.zeros_like(forced.emitted), torch.zeros_like(forced.predicts), forced.predicts)
    config = SteeringConfig(steps=4, persistent=persistent)
    learned = learn_vectors(model, [batch], [batch], n_behaviours=2, layer=LAYER, config=config, seed=0)
    assert [epoch["gates"] for epoch in learned.history] == [0, 0, 0]
    assert [epoch["loss"] for epoch in learned.history] == [0, 0, 0]
    assert learned.vectors.vectors.isfinite().all()


def test_a_group_is_steered_together_and_nothing_else_sees_it(some_arch, tiny_folder):
    """One sentence as a group: the losses are those of decoding on with persistent shifts from where it begins."""
    model = load_model(ModelConfig(str(tiny_folder(some_arch, tokenizer="letters"))), device="cpu")
    vectors = FixedVectors.of(torch.randn(1, model.d_model, generator=torch.Generator().manual_seed(0)), LAYER)
    forced = force(model, PROMPTS, TEXTS)
    gate = torch.zeros_like(forced.emitted)
    gate[0, 2:6] = gate[0, 9:11] = gate[1, 4:8] = True
    group = torch.where(torch.arange(gate.shape[1]) < 8, 1, 2).expand(gate.shape)
    target = forced.ids.gather(1, (forced.predicts + 1).clamp(max=forced.ids.shape[1] - 1))
    batch = GateBatch(forced, gate, torch.zeros_like(target), target, group)
    losses = GateLoss(model, vectors)(batch, resid_below(model, batch, LAYER)).losses

    expected = []
    for row, spans in ((0, ((2, 6), (9, 11))), (1, ((4, 8),))):
        for start, end in spans:
            runner = Runner(model, [PROMPTS[row]], len(TEXTS[row]) + 1, steer=LAYER)
            step = runner.prefill()
            for j, token in enumerate(TEXTS[row][:end]):
                if j >= start:
                    logits = runner.rerun(step.resid[LAYER] + vectors.vectors, torch.tensor([0]), persistent=True)
                    expected.append(-logits[0].log_softmax(-1)[token])
                step = runner.step(torch.tensor([token]))
    torch.testing.assert_close(losses, torch.stack(expected), atol=2e-4, rtol=1e-3)

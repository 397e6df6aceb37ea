"""Gates are learned the same in any budget, and after memory ran out; what is held stays within it."""

import logging
from dataclasses import replace

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.peak import Peak
from probe.hooks import Head, force, forced_pass
from probe.models import Model, ModelConfig, load_model
from probe.steering import BehaviourVectors, FixedVectors, GateBatch, learn_on_sentences, learn_vectors
from probe.steering.objective import GateLoss
from probe.steering.parts import chunks_of, rows_of
from probe.steering.prefix import resid_below
from probe.steering.sentences import _losses
from tests.steering.test_learn import CONFIG, LAYER, K, gates_of

KINDS = ("transient", "persistent", "sentences")


def batch_of(model, kind, seed=0):
    """A batch with many gates; those of sentences are in groups of four."""
    batch = gates_of(model, 1, seed)[0]
    gate = batch.forced.emitted.clone()
    gate[:, 5] = False
    column = torch.arange(gate.shape[1]).expand(gate.shape)
    return replace(batch, gate=gate, group=column // 4 if kind == "sentences" else None)


@pytest.fixture
def model(tiny_folder):
    return load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters"))), device="cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_the_whole(arch, tiny_folder, kind):
    """Every architecture, with windows and caps: each gate is scored once, with the same loss and gradient."""
    model = load_model(ModelConfig(str(tiny_folder(arch, tokenizer="letters"))), device="cpu")
    vectors = BehaviourVectors(K, model.d_model, LAYER, persistent=kind == "persistent")
    vectors.directions.data = torch.randn(K, model.d_model, generator=torch.Generator().manual_seed(0))
    batch = batch_of(model, kind)
    hidden, loss = resid_below(model, batch, LAYER), GateLoss(model, vectors)
    whole = loss(batch, hidden)
    weights = torch.rand(len(whole.losses), generator=torch.Generator().manual_seed(1))
    (whole.losses * weights).sum().backward()
    gradient = vectors.directions.grad.clone()
    enough = loss.whole(batch)
    counts = []
    assert len(list(loss.parts(batch, hidden, enough))) == 1
    for budget in (enough // 4, 1):
        vectors.zero_grad()
        seen, losses, right = [], torch.zeros_like(whole.losses), torch.zeros_like(whole.right)
        for gates, scored in loss.parts(batch, hidden, budget):
            (scored.losses * weights[gates]).sum().backward()
            losses[gates], right[gates] = scored.losses.detach(), scored.right
            seen += gates.tolist()
        counts.append(len(seen))
        assert sorted(seen) == list(range(len(weights)))
        torch.testing.assert_close(losses, whole.losses.detach(), atol=2e-5, rtol=1e-4)
        assert torch.equal(right, whole.right)
        torch.testing.assert_close(
            vectors.directions.grad, gradient, atol=1e-4 * gradient.abs().max().item(), rtol=1e-3
        )


def test_a_chunk_divides_no_group_and_rows_lose_their_padding(model):
    batch = batch_of(model, "sentences")
    chunks = list(chunks_of(batch, 3))
    assert len(chunks) > 2 and torch.equal(sum(chunk.gate.long() for chunk in chunks), batch.gate.long())
    for chunk in chunks:
        for row in range(len(chunk.gate)):
            for group in chunk.group[row][chunk.gate[row]].unique():
                there = batch.gate[row] & (batch.group[row] == group)
                assert torch.equal(there & chunk.gate[row], there)
    first = rows_of(batch, slice(0, 1))
    tokens = int(batch.forced.valid[0].sum())
    assert first.forced.ids.shape == (1, tokens) < tuple(batch.forced.ids.shape)
    assert torch.equal(first.forced.tokens[first.gate], batch.forced.tokens[0][batch.gate[0]])


@pytest.mark.parametrize("kind", KINDS)
def test_memory_that_runs_out_changes_nothing(model, monkeypatch, caplog, kind):
    train = [batch_of(model, kind, seed) for seed in range(2)]
    config = replace(CONFIG, steps=3, check_every=3, balance=False, persistent=kind == "persistent", lr_vectors=0.5)

    def learn():
        if kind == "sentences":
            return learn_on_sentences(model, train, train[:1], n_behaviours=K, layer=LAYER, config=config, seed=0)[0]
        return learn_vectors(model, train, train[:1], n_behaviours=K, layer=LAYER, config=config, seed=0)

    expected = learn()
    real, calls = Head.__call__, []

    def runs_out(self, states):
        calls.append(None)
        if len(calls) in (3, 5):  # the validation loss has been measured; then a step, when it tries again, too
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, states)

    monkeypatch.setattr(Head, "__call__", runs_out)
    with caplog.at_level(logging.WARNING, "probe"):
        found = learn()
    assert len([record for record in caplog.records if "trying again" in record.getMessage()]) == 2
    assert [check["loss"] for check in found.history] == pytest.approx(
        [check["loss"] for check in expected.history], rel=1e-4
    )
    torch.testing.assert_close(found.vectors.vectors, expected.vectors.vectors, rtol=1e-3, atol=1e-4)


def test_sentence_losses_do_not_depend_on_the_budget(model):
    forced = gates_of(model, 1)[0].forced
    logits = forced_pass(model, forced).logits
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2).float(), forced.tokens, reduction="none")
    for memory in (None, 30_000, 1):
        model.memory = memory
        torch.testing.assert_close(_losses(model, forced)[forced.emitted], expected[forced.emitted])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_held_stays_within_the_budget(letters, kind):
    """Every token of six texts of 120 tokens is a gate, with a vocabulary of 20,000."""
    config = Qwen2Config(
        vocab_size=20_000,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = Model(Qwen2ForCausalLM(config), letters)
    ids = torch.randint(6, 256, (6, 120), generator=torch.Generator().manual_seed(0)).tolist()
    forced = force(model, [row[:4] for row in ids], [row[4:] for row in ids])
    group = (torch.arange(116) // 25).expand(6, -1) if kind == "sentences" else None
    batch = GateBatch(forced, forced.emitted, torch.zeros_like(forced.tokens), forced.tokens, group)
    vectors = FixedVectors(1, model.d_model, LAYER, persistent=kind == "persistent")
    hidden, loss, found = resid_below(model, batch, LAYER), GateLoss(model, vectors), {}
    for budget in (loss.whole(batch), 12_000_000, 4_000_000):
        vectors.zero_grad()
        with Peak() as held:
            for _, scored in loss.parts(batch, hidden, budget):
                scored.losses.sum().backward()
        assert held.peak < 1.2 * budget
        found[budget] = vectors.directions.grad.clone(), held.peak
    gradients, peaks = zip(*found.values(), strict=True)
    assert peaks[0] > 5 * peaks[1] > 5 * peaks[2]
    for gradient in gradients[1:]:
        assert (gradient - gradients[0]).norm() < 2e-5 * gradients[0].norm()

"""Learning: the loop is the same for every mechanism, whoever shares it and wherever it keeps what lies below."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from probe.errors import ProbeError
from probe.hooks import force, forced_pass
from probe.models import ModelConfig, load_model
from probe.steering import (
    FixedVectors,
    GateBatch,
    RankOne,
    SteeringConfig,
    learn_mechanism,
    learn_on_sentences,
    learn_vectors,
)
from probe.steering.balance import gate_weights
from probe.steering.objective import GateLoss
from probe.steering.prefix import Prefix, resid_below
from tests.forked import together

LAYER, K = 1, 3
CONFIG = SteeringConfig(steps=6, check_every=2, hidden=4, batches_per_step=2, balance=True, per_trace=3)


def gates_of(model, n=4, seed=0):
    """Random text with random gates, whose target token depends on the behaviour."""
    generator = torch.Generator().manual_seed(seed)

    def draw(rows, width):
        return torch.randint(6, 90, (rows, width), generator=generator).tolist()

    batches = []
    for i in range(n):
        forced = force(model, draw(3, 5), [row[: 10 + 3 * i + j] for j, row in enumerate(draw(3, 24))])
        gate = (torch.rand(forced.emitted.shape, generator=generator) < 0.4) & forced.emitted
        behaviour = torch.randint(K, gate.shape, generator=generator)
        batches.append(GateBatch(forced, gate, behaviour, 20 + 10 * behaviour))
    return batches


@pytest.fixture
def model(tiny_folder):
    return load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters"))), device="cpu")


@pytest.mark.parametrize("persistent", [False, True])
def test_every_kind_learns(model, persistent):
    train, unseen = gates_of(model), gates_of(model, 2, seed=1)
    config = replace(CONFIG, steps=20, lr_vectors=1.0, persistent=persistent)
    learned = [learn_vectors(model, train, unseen, n_behaviours=K, layer=LAYER, config=config, seed=0)]
    for kind in (FixedVectors, RankOne):
        fresh = kind(K, model.d_model, LAYER, unit=learned[0].vectors.unit, persistent=persistent)
        learned.append(learn_mechanism(model, fresh, train, unseen, config=config, seed=0))
    for each in learned:
        first, best = each.history[0]["loss"], min(check["loss"] for check in each.history)
        assert best < 0.7 * first
        scored = [GateLoss(model, each.vectors)(batch, resid_below(model, batch, LAYER)) for batch in unseen]
        mean = torch.cat([score.losses for score in scored]).mean().item()
        assert mean == pytest.approx(best, rel=1e-4), "the best evaluation's is kept, and folding changes nothing"


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize(
    ("unseen", "said"), [(1, "the validation loss of the mechanism"), (0, "gradient .* at step 0")]
)
def test_vectors_that_are_not_finite_say_so(model, persistent, unseen, said):
    train, mechanism = gates_of(model, 2), FixedVectors(K, model.d_model, LAYER, persistent=persistent)
    mechanism.directions.data[:, 3] = float("nan")
    with pytest.raises(ProbeError, match=f"{said} is not finite"):
        learn_mechanism(model, mechanism, train, train[:unseen], config=CONFIG, seed=0)


def test_a_mechanism_and_targets_that_do_not_fit_are_refused(model):
    train = gates_of(model, 1)
    beyond = [replace(batch, target=batch.target + 500) for batch in train]
    for wrong, batches, said in (
        (FixedVectors(K, model.d_model + 1, LAYER), train, "vectors are 33 wide and llama-letters-0 is 32 wide"),
        (FixedVectors(K, model.d_model, 3), train, "can be steered at layers 0 to 2"),
        (FixedVectors(K, model.d_model, LAYER), beyond, r"a gate's target is token 5\d\d"),
    ):
        with pytest.raises(ProbeError, match=said):
            learn_mechanism(model, wrong, batches, train, config=CONFIG, seed=0)


@pytest.mark.parametrize("steps", [1, 2, 11])
def test_any_number_of_steps_will_do(model, steps):
    train = gates_of(model, 1)
    config = replace(CONFIG, steps=steps, check_every=1, patience=99, batches_per_step=1)
    done = learn_vectors(model, train, train, n_behaviours=K, layer=LAYER, config=config, seed=0)
    assert [check["step"] for check in done.history] == list(range(steps + 1))
    assert not done.converged and "not converged" in repr(done)


def test_without_gates_nothing_is_learned_or_called_converged(model):
    batch = gates_of(model, 1)[0]
    none = replace(batch, gate=torch.zeros_like(batch.gate))
    how = {"n_behaviours": K, "layer": LAYER, "config": CONFIG, "seed": 0}
    assert not learn_vectors(model, [batch], [none], **how).converged
    fresh = FixedVectors(K, model.d_model, LAYER)
    with pytest.raises(ProbeError, match="there is nothing to learn from"):
        learn_mechanism(model, fresh, [], [batch], config=CONFIG, seed=0)


def test_training_lasts_until_the_loss_stops_falling_however_few_the_texts(model):
    config = replace(CONFIG, steps=2000, check_every=10, patience=20, lr_vectors=1.0, batches_per_step=1)
    for n in (1, 4):
        train = gates_of(model, n)
        done = learn_vectors(model, train, train, n_behaviours=K, layer=LAYER, config=config, seed=0)
        losses = {check["step"]: check["loss"] for check in done.history}
        assert done.converged and 50 < max(losses) < 2000
        assert min(losses.values()) < 0.25 * losses[0]


def test_after_learning_the_mean_strength_at_a_behaviour_s_gates_is_one(model):
    train = gates_of(model)
    vectors = learn_vectors(model, train, train, n_behaviours=K, layer=LAYER, config=CONFIG, seed=0).vectors
    resid = torch.cat([resid_below(model, batch, LAYER)[batch.places] for batch in train])
    behaviour = torch.cat([batch.behaviour[batch.gate] for batch in train])
    strength = vectors.strength(resid, behaviour)
    for k in range(K):
        assert strength[behaviour == k].mean().item() == pytest.approx(1, abs=1e-5)
    assert strength.std() > 0


def test_weights_of_a_step_sum_to_one_and_balanced_every_behaviour_weighs_alike(model):
    batches = [replace(batch, behaviour=(batch.behaviour - 1).clamp(min=0)) for batch in gates_of(model)]
    behaviour = torch.cat([batch.behaviours(K) for batch in batches])
    trace = torch.cat([batch.places[0] + 3 * i for i, batch in enumerate(batches)])

    def weights(config, seed=0):
        return torch.cat(gate_weights(batches, K, config, torch.Generator().manual_seed(seed)))

    torch.testing.assert_close(weights(SteeringConfig()), torch.full((len(behaviour),), 1 / len(behaviour)))
    every = weights(replace(CONFIG, per_trace=None))
    some, again, other = weights(CONFIG), weights(CONFIG), weights(CONFIG, seed=1)
    for found in (every, some):
        shares = torch.bincount(behaviour, found, minlength=K)
        torch.testing.assert_close(shares, torch.tensor([0.5, 0.5, 0.0]))  # the third has no gate
    assert (every > 0).all() and torch.equal(some, again) and not torch.equal(some, other)
    kept = torch.bincount(trace * K + behaviour, (some > 0).float())
    assert torch.equal(kept, torch.bincount(trace * K + behaviour).clamp(max=3).float())


def test_what_lies_below_is_run_once_and_never_taken_for_another_s(model, tiny_folder, tmp_path):
    batches = gates_of(model)
    first = Prefix(model, batches, LAYER, tmp_path)
    assert not list(tmp_path.iterdir())
    used = [first[i] for i in range(len(first))]
    assert len(used) == len(batches)
    written = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    again = Prefix(model, batches[::-1], LAYER, tmp_path)
    for batch, hidden in (again[i] for i in range(len(again))):
        assert torch.equal(hidden, resid_below(model, batch, LAYER))
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == written and len(written) == len(batches)
    other = load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters", seed=1))), device="cpu")
    other.name = model.name
    for differs, layer in ((other, LAYER), (model, LAYER + 1)):
        found = Prefix(differs, batches, layer, tmp_path)
        assert torch.equal(found[0][1], resid_below(differs, batches[0], layer))


def test_what_is_kept_in_half_precision_is_what_is_read(tiny_folder, tmp_path):
    half = load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters"))), device="cpu", dtype="bfloat16")
    batches = gates_of(half, 2)
    kept = Prefix(half, batches, LAYER, tmp_path)
    for batch, hidden in (kept[i] for i in range(len(kept))):
        assert hidden.dtype == torch.bfloat16 and torch.equal(hidden, resid_below(half, batch, LAYER))
    nothing = FixedVectors.of(torch.zeros(K, half.d_model), LAYER)
    random = FixedVectors.of(torch.randn(K, half.d_model, generator=torch.Generator().manual_seed(0)), LAYER)
    for batch, hidden in (kept[i] for i in range(len(kept))):
        unsteered = forced_pass(half, batch.forced).logits[batch.gate].float()
        losses = torch.nn.functional.cross_entropy(unsteered, batch.target[batch.gate], reduction="none")
        torch.testing.assert_close(GateLoss(half, nothing)(batch, hidden).losses, losses, atol=0.05, rtol=0.02)
        assert (GateLoss(half, random)(batch, hidden).losses - losses).abs().max() > 0.2


def test_sentences_are_learned_and_the_caller_s_random_numbers_stay(model):
    train = [replace(batch, group=torch.zeros_like(batch.behaviour)) for batch in gates_of(model, 2)]
    state = torch.get_rng_state()
    how = {"layer": LAYER, "config": replace(CONFIG, steps=6, lr_vectors=1.0), "seed": 0}
    learned, bias = learn_on_sentences(model, train, train, n_behaviours=K, **how)
    learn_vectors(model, train, train, n_behaviours=1, layer=LAYER, config=replace(CONFIG, steps=1), seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    for each, n in ((learned, K), (bias, 1)):
        assert min(check["loss"] for check in each.history) < 0.9 * each.history[0]["loss"]
        assert each.vectors.vectors.shape == (n, model.d_model)
    alone, _ = learn_on_sentences(model, train, train, n_behaviours=0, **how)
    assert torch.equal(alone.vectors.vectors, bias.vectors.vectors), (
        "the bias does not depend on what is learned after it"
    )


def test_a_cache_changes_nothing(model, tmp_path):
    train = gates_of(model)
    plain, kept, again = (
        learn_vectors(model, train, train[:1], n_behaviours=K, layer=LAYER, config=CONFIG, seed=0, folder=folder)
        for folder in (None, tmp_path, tmp_path)
    )
    assert torch.equal(plain.vectors.vectors, kept.vectors.vectors)
    assert torch.equal(plain.vectors.vectors, again.vectors.vectors)


def in_a_process(path: str, folder: Path) -> None:
    """Learn in this process, which is alone or one of several, and write what was learned."""
    accelerator = Accelerator(cpu=True)
    model = load_model(ModelConfig(path), device="cpu")
    train, unseen = gates_of(model), gates_of(model, 3, seed=1)
    train.append(replace(train[0], gate=torch.zeros_like(train[0].gate)))  # at times one process has nothing to do
    how = {"n_behaviours": K, "layer": LAYER, "seed": 0, "accelerator": accelerator}
    learned = learn_vectors(model, train, unseen, config=CONFIG, **how)
    try:
        learn_vectors(model, train, unseen, config=replace(CONFIG, batches_per_step=1), **how)
        refused = ""
    except ProbeError as error:
        refused = str(error)
    vectors = {"vectors": learned.vectors.vectors.tolist(), "scale": learned.vectors.scale.tolist()}
    out = {"processes": accelerator.num_processes, "history": learned.history, "refused": refused, **vectors}
    (folder / f"{accelerator.process_index}.json").write_text(json.dumps(out))


@pytest.mark.slow
def test_two_processes_learn_the_vectors_of_one(tiny_folder, tmp_path):
    folder = str(tiny_folder("llama", tokenizer="letters"))
    for n, name in ((1, "one"), (2, "two")):
        (tmp_path / name).mkdir()
        together(n, in_a_process, folder, tmp_path / name)
    one, *two = (json.loads((tmp_path / name).read_text()) for name in ("one/0.json", "two/0.json", "two/1.json"))
    assert [each["processes"] for each in (one, *two)] == [1, 2, 2] and not one["refused"]
    for each in two:
        assert "batches_per_step is 1" in each["refused"]
        for name in ("vectors", "scale"):
            torch.testing.assert_close(torch.tensor(each[name]), torch.tensor(one[name]), rtol=1e-5, atol=1e-5)
        assert [epoch["gates"] for epoch in each["history"]] == [epoch["gates"] for epoch in one["history"]]

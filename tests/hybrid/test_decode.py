"""The identities that a hybrid must keep, on random models of every architecture, where they cannot hold by luck."""

from dataclasses import replace

import pytest
import torch

from probe.hooks import edit
from probe.hybrid import (
    AddVector,
    Always,
    Arm,
    Disagreement,
    FixedStrength,
    ForceToken,
    LearnedStrength,
    Never,
    OneBehaviour,
    RandomBehaviour,
    RandomPositions,
    Rerank,
    decode_hybrid,
)
from probe.models import ModelConfig, Pair, PairConfig, load_model
from probe.problems import load_problems
from probe.steering import BehaviourVectors
from probe.traces import decode_greedy

LAYER, NEW_TOKENS = 1, 24


@pytest.fixture
def pair(some_arch, tiny_folder):
    configs = [
        ModelConfig(str(tiny_folder(some_arch, seed=1)), prompt="Problem: {question}\nSolution:"),
        ModelConfig(str(tiny_folder(some_arch, seed=2)), prompt="Question: {question}\n<think>"),
    ]
    return Pair(PairConfig(f"random-{some_arch}", *configs), *(load_model(config, device="cpu") for config in configs))


@pytest.fixture
def problems():
    return load_problems("story").take("test", 7)


@pytest.fixture
def vectors(pair):
    made = BehaviourVectors(3, pair.base.d_model, LAYER, unit=1.0).requires_grad_(False)
    made.directions.data = torch.randn(3, pair.base.d_model, generator=torch.Generator().manual_seed(5))
    return made


def decode(pair, arm, problems, seed=0, batch_size=64):
    return decode_hybrid(pair, arm, problems, max_new_tokens=NEW_TOKENS, seed=seed, batch_size=batch_size)


def tokens_of(traces):
    return [(tuple(trace.tokens), trace.truncated) for trace in traces]


def greedy(model, problems):
    rows = decode_greedy(model, [model.prompt_ids(problem.question) for problem in problems], NEW_TOKENS)
    return [(row.tokens, row.truncated) for row in rows]


@pytest.fixture
def steered(vectors):
    return Arm("steered", Disagreement(), RandomBehaviour(3), LearnedStrength(vectors), AddVector(vectors))


def test_strength_zero_is_the_base_model(pair, problems, steered):
    zero = replace(steered, where=Always(), how_strongly=FixedStrength(0.0))
    traces = decode(pair, zero, problems)
    assert tokens_of(traces) == greedy(pair.base, problems)
    assert all(all(trace.steered) for trace in traces)


def test_a_gate_that_never_opens_is_the_base_model(pair, problems, steered):
    assert tokens_of(decode(pair, replace(steered, where=Never()), problems)) == greedy(pair.base, problems)


@pytest.mark.parametrize("where", [Always(), Disagreement()])
def test_forcing_the_token_is_the_thinking_model(pair, problems, steered, where):
    """Also at disagreements only: everywhere else the two models say the same."""
    forced = replace(steered, where=where, emit=ForceToken())
    assert tokens_of(decode(pair, forced, problems)) == greedy(pair.thinking, problems)


def test_steering_does_something(pair, problems, steered):
    strong = replace(steered, how_strongly=FixedStrength(20.0))
    assert tokens_of(decode(pair, strong, problems)) != greedy(pair.base, problems)


def test_batched_equals_single_equals_refilled(pair, problems, steered):
    batch = decode(pair, steered, problems)
    assert tokens_of(decode(pair, steered, problems, batch_size=2)) == tokens_of(batch)
    for problem, trace in zip(problems, batch, strict=True):
        assert tokens_of(decode(pair, steered, [problem])) == tokens_of([trace])


@pytest.mark.parametrize("persistent", [False, True])
def test_cached_equals_uncached(pair, problems, steered, persistent):
    """Replay one row without any cache: a full pass at every step; persistent shifts are put back where they were."""
    problem = problems[0]
    steered.emit.mechanism.persistent = persistent
    (trace,) = decode(pair, steered, [problem])
    prompt = pair.base.prompt_ids(problem.question)
    vectors = steered.emit.mechanism
    shifts: dict[int, torch.Tensor] = {}
    gates = 0

    def forward(ids, changes):
        def add(hidden):
            hidden = hidden.clone()
            for position, shift in changes.items():
                hidden[:, position] += shift
            return hidden

        with torch.no_grad(), edit(pair.base, {f"resid_post.{LAYER}": add}):
            return pair.base.hf(torch.tensor([ids]), output_hidden_states=True)

    for j, token in enumerate(trace.tokens):
        ids = [*prompt, *trace.tokens[:j]]
        position = len(ids) - 1
        clean = forward(ids, shifts)
        assert int(clean.logits[0, -1].argmax()) == trace.base_token[j]
        if trace.steered[j]:
            resid = clean.hidden_states[LAYER + 1][:, -1]
            strength, behaviour = torch.tensor([trace.strength[j]]), torch.tensor([trace.behaviour[j]])
            shift = vectors.shift(resid, strength, behaviour)[0]
            now = shifts | {position: shift}
            assert int(forward(ids, now).logits[0, -1].argmax()) == token
            gates += 1
            shifts = now if persistent else {}
        else:
            assert trace.base_token[j] == trace.thinking_token[j] == token
    assert gates, "the gate never opened: the test says nothing"


def test_random_controls_draw_by_problem_and_not_by_batch(pair, problems, steered):
    anywhere = replace(steered, where=RandomPositions(0.3))
    together, alone = decode(pair, anywhere, problems), decode(pair, anywhere, problems[3:4])
    assert together[3].steered == alone[0].steered
    assert together[3].behaviour == alone[0].behaviour
    assert [t.steered for t in decode(pair, anywhere, problems, seed=1)] != [t.steered for t in together]


def test_random_positions_steer_at_their_rate(pair, problems, steered):
    gates = [g for t in decode(pair, replace(steered, where=RandomPositions(0.3)), problems) for g in t.steered]
    assert abs(sum(gates) / len(gates) - 0.3) < 0.15


def test_rerank_takes_the_best_of_the_bases_own_candidates(pair, problems, steered):
    assert tokens_of(decode(pair, replace(steered, emit=Rerank(among=1)), problems)) == greedy(pair.base, problems)
    everything = replace(steered, where=Always(), emit=Rerank(among=len(pair.base.tokenizer)))
    assert tokens_of(decode(pair, everything, problems)) == greedy(pair.thinking, problems)


def test_identities_hold_in_half_precision(tiny_folder, problems):
    """The vectors stay in float32 whatever precision the models run in."""
    models = [
        load_model(ModelConfig(str(tiny_folder("llama", seed=s))), device="cpu", dtype="bfloat16") for s in (1, 2)
    ]
    pair = Pair(PairConfig("half", models[0].config, models[1].config), *models)
    vectors = BehaviourVectors(3, pair.base.d_model, LAYER).requires_grad_(False)
    arm = Arm("steered", Disagreement(), RandomBehaviour(3), LearnedStrength(vectors), AddVector(vectors))
    traces = decode(pair, arm, problems[:3])
    for trace in traces:
        assert trace.steered == [b != t for b, t in zip(trace.base_token, trace.thinking_token, strict=True)]
    assert any(any(trace.steered) for trace in traces)
    zero = replace(arm, where=Always(), how_strongly=FixedStrength(0.0))
    assert tokens_of(decode(pair, zero, problems[:3])) == greedy(pair.base, problems[:3])
    forced = replace(arm, emit=ForceToken())
    assert tokens_of(decode(pair, forced, problems[:3])) == greedy(pair.thinking, problems[:3])
    assert repr(traces[0]).startswith(f"HybridTrace('{problems[0].id}', ") and len(repr(traces[0])) < 120


def test_one_behaviour(pair, problems, steered):
    traces = decode(pair, replace(steered, which=OneBehaviour(2)), problems)
    assert {b for t in traces for b, s in zip(t.behaviour, t.steered, strict=True) if s} == {2}

"""The parts that say where and which, against what they are computed from, read again by full forward passes."""

import pytest
import torch

from probe.errors import ProbeError
from probe.hooks import capture
from probe.hybrid import (
    AddVector,
    Always,
    Arm,
    ComingBehaviour,
    FixedStrength,
    ForceToken,
    LeastSimilar,
    OneBehaviour,
    SentenceStart,
    ThinkingBehaviour,
    decode_hybrid,
    least_similar,
    oracle_free_arm,
)
from probe.hybrid.sentence_state import SentenceState, sentence_enders
from probe.problems import load_problems
from probe.steering import BasePolicy, BehaviourVectors, ComingReader
from tests.hybrid.conftest import random_taxonomy

K, NEW_TOKENS, AT = 3, 20, 2


@pytest.fixture
def problems():
    return load_problems("story").take("test", 4)


@pytest.fixture
def vectors(llamas):
    made = BehaviourVectors(K, llamas.base.d_model, 1, unit=1.0).requires_grad_(False)
    made.directions.data = torch.randn(K, llamas.base.d_model, generator=torch.Generator().manual_seed(5))
    return made


def named(pair, which, vectors, problems, **more):
    """Everything steered at strength zero: the base model's text, and each token's behaviour."""
    return decode_hybrid(pair, Arm("x", Always(), which, FixedStrength(0.0), AddVector(vectors)), problems, **more)


def states(pair, trace, problem, layer):
    """The thinking model's residual stream from which each emitted token is predicted, by one pass without a cache."""
    prompt = pair.thinking.prompt_ids(problem.question)
    with torch.no_grad(), capture(pair.thinking, f"resid_post.{layer}") as acts:
        pair.thinking.hf(torch.tensor([[*prompt, *trace.tokens]]))
    return acts[f"resid_post.{layer}"][0, len(prompt) - 1 : -1]


def test_a_behaviour_is_read_off_the_newest_token(llamas, vectors, problems):
    taxonomy = random_taxonomy(llamas.thinking, AT, K)
    for trace, problem in zip(
        named(llamas, ThinkingBehaviour(taxonomy), vectors, problems, max_new_tokens=NEW_TOKENS), problems, strict=True
    ):
        assert trace.behaviour == taxonomy.behaviour(states(llamas, trace, problem, AT)).tolist()


def test_or_off_the_mean_over_the_sentence_so_far(llamas, vectors, problems):
    taxonomy = random_taxonomy(llamas.thinking, AT, K)
    pooled = named(
        llamas, ThinkingBehaviour(taxonomy, pooled=True), vectors, problems, max_new_tokens=NEW_TOKENS, batch_size=2
    )
    enders = sentence_enders(llamas.base.tokenizer, llamas.base.hf.config.vocab_size)
    differ = 0
    for trace, problem in zip(pooled, problems, strict=True):
        read, start = states(llamas, trace, problem, AT), 0
        for j, behaviour in enumerate(trace.behaviour):
            if j and enders[trace.tokens[j - 1]]:
                start = j
            assert behaviour == int(taxonomy.behaviour(read[start : j + 1].mean(0, keepdim=True)))
            differ += behaviour != int(taxonomy.behaviour(read[j : j + 1]))
    assert differ, "the mean and the newest say the same: the test says nothing"


def test_or_by_a_reader_of_what_is_coming(llamas, vectors, problems):
    torch.manual_seed(0)
    reader = ComingReader(3, llamas.thinking.d_model, K).requires_grad_(False)
    arm = Arm("x", Always(), ComingBehaviour(reader), FixedStrength(0.0), AddVector(vectors))
    traces = decode_hybrid(llamas, arm, problems, max_new_tokens=NEW_TOKENS)
    for trace, problem in zip(traces, problems, strict=True):
        assert trace.behaviour == reader(states(llamas, trace, problem, 3)).tolist()
    furthest = least_similar(vectors.vectors)
    swapped = named(llamas, LeastSimilar(arm.which, furthest), vectors, problems, max_new_tokens=NEW_TOKENS)
    assert [t.behaviour for t in swapped] == [[furthest[k] for k in t.behaviour] for t in traces]
    assert all(k != other for k, other in enumerate(furthest))


def test_a_policy_needs_no_thinking_model(llamas, vectors, problems):
    torch.manual_seed(0)
    policy = BasePolicy((0, 2), llamas.base.d_model, K, threshold=0.7).eval().requires_grad_(False)
    arm = oracle_free_arm(policy, vectors)
    alone = decode_hybrid(llamas.base, arm, problems, max_new_tokens=NEW_TOKENS)
    gates = [gate for trace in alone for gate in trace.steered]
    assert any(gates) and not all(gates)
    assert {token for trace in alone for token in trace.thinking_token} == {-1}

    def asked(*_, **__):
        pytest.fail("the thinking model was run")

    llamas.thinking.hf.forward = asked
    assert [t.tokens for t in decode_hybrid(llamas, arm, problems, max_new_tokens=NEW_TOKENS)] == [
        t.tokens for t in alone
    ]
    force = Arm("forced", Always(), OneBehaviour(), FixedStrength(), ForceToken())
    with pytest.raises(ProbeError, match="'forced' asks the thinking model"):
        decode_hybrid(llamas.base, force, problems, max_new_tokens=2)


def test_lengths_and_means_of_sentences():
    enders = torch.zeros(10, dtype=torch.bool)
    enders[9] = True
    state = SentenceState(enders, 2)
    rows = torch.tensor([0, 1])
    read = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    last = torch.tensor([[-1, -1], [1, 9], [9, 2], [3, 9], [4, 9]])
    found = [state.advance(rows, last[j], {0: read[j]}) for j in range(5)]
    assert [length.tolist() for length, _ in found] == [[0, 0], [1, 0], [0, 1], [1, 0], [2, 0]]
    torch.testing.assert_close(found[4][1][0][0], read[2:5, 0].mean(0))
    torch.testing.assert_close(found[2][1][0][1], read[1:3, 1].mean(0))
    torch.testing.assert_close(found[4][1][0][1], read[4, 1])


def test_the_first_tokens_of_sentences(llamas, vectors, problems):
    arm = Arm("x", SentenceStart(2, opening=4), OneBehaviour(), FixedStrength(0.0), AddVector(vectors))
    enders = sentence_enders(llamas.base.tokenizer, llamas.base.hf.config.vocab_size)
    assert enders[llamas.base.tokenizer.convert_tokens_to_ids(".")] and 0 < enders.sum() < 40
    for trace in decode_hybrid(llamas, arm, problems, max_new_tokens=NEW_TOKENS):
        since, wanted = -1, []
        for j in range(len(trace.tokens)):
            since = 0 if j == 0 or enders[trace.tokens[j - 1]] else since + 1
            wanted.append(since < 2 or j < 4)
        assert trace.steered == wanted and not all(wanted)

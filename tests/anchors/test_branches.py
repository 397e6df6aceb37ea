"""What comes back after it was taken out, and edits that the model would not have written."""

from itertools import count

import pytest

import probe
from probe.anchors import branches, edited, own_sentences, resilience
from probe.anchors.rollouts import continue_texts
from probe.errors import ProbeError
from tests.anchors.planted import planted_traces, says_the_same


@pytest.fixture(scope="module")
def scene():
    pair, problems = probe.load_pair("tiny-rl", device="cpu"), probe.load_problems("story")
    ((problem, trace, kinds, wrong, _),) = planted_traces(pair.thinking, 1, changes=2, seed=3)
    return pair, problems, problem, trace, kinds, wrong


def test_what_a_story_needs_comes_back_and_a_slip_does_not(scene):
    pair, problems, problem, trace, kinds, wrong = scene
    restated = kinds.index("restate")
    found = resilience(
        pair.thinking, problems, problem, trace, sentences=[restated, wrong], n_samples=4, limit=3, max_new_tokens=60
    )
    (often, once), (never_gone, gone) = found.rounds, found.remains
    assert often == (4, 4, 4, 4) and never_gone == 1.0, "the model restates a change before it computes with it"
    assert once == (1, 1, 1, 1) and gone == 0.0, "it does not make the same slip again"
    assert len(found.final[0]) == 0 and len(found.final[1]) == 4
    assert all(" = " in text for text in found.final[1].texts)
    assert found.given_up == (0, 0)
    assert "never stays away" in found._repr_html_() and found.mean[1].value == 1.0
    with pytest.raises(ProbeError, match="there is no sentence 99 that another follows"):
        resilience(pair.thinking, problems, problem, trace, sentences=[99])


def test_chains_that_grow_too_long_are_given_up_and_counted(scene, monkeypatch):
    pair, problems, problem, trace, _, _ = scene
    prompt, calls, texts = len(pair.thinking.prompt_ids(problem.question)), count(), []
    monkeypatch.setattr(branches, "n_positions", lambda _: prompt + 40 + 20)

    def told(*given, **how):
        texts.extend(given[-1])
        return continue_texts(*given, **how)

    monkeypatch.setattr(branches, "continue_texts", told)
    settings = {"sentences": [0], "n_samples": 3, "max_new_tokens": 40, "limit": 8}
    found = resilience(
        pair.thinking, problems, problem, trace, alike=lambda *_: next(calls) % 2 == 1, **settings
    )  # every second sentence says the same, so that each chain grows by a sentence in each round
    assert found.given_up == (3,) and found.remains == (1.0,) and len(texts) < 3 * 8
    assert max(map(len, texts)) <= 20, "a text and its rollout fit into the positions of the model"


def test_edits_are_compared_with_the_models_own_sentences(scene):
    pair, problems, problem, trace, _, wrong = scene
    theirs = own_sentences(pair.base, problems, problem, trace, wrong, n_samples=4, alike=says_the_same)
    assert theirs and trace.sentence_text(trace.sentences[wrong]) not in theirs
    same = [trace.sentence_text(trace.sentences[wrong])]
    own, slip, base = edited(
        pair.thinking,
        problems,
        problem,
        trace,
        wrong,
        {"slip": same, "base": theirs},
        n_samples=8,
        max_new_tokens=60,
        alike=says_the_same,
    )
    assert (own.source, slip.source, base.source) == ("own", "slip", "base")
    assert own.effect.value < -0.8 and own.shift.p < 0.01, "with the slip the answer is wrong, without it right"
    assert abs(slip.effect.value) < 0.2 and slip.shift.p > 0.05, "to write the slip again changes nothing"
    with pytest.raises(ProbeError, match="the source 'typed' has no sentences"):
        edited(pair.thinking, problems, problem, trace, wrong, {"typed": []})

"""Rollouts continue from the right place, are graded as whole texts, and depend on the seed only."""

import math
from collections import Counter
from dataclasses import replace

import pytest

import probe
from probe.anchors import (
    Continuations,
    anchors_of,
    contrast,
    critical_tokens,
    entropy,
    forced_answers,
    forced_of,
    roll_out,
    rollouts,
    say_the_same,
    thought_anchors,
)
from probe.errors import ProbeError
from probe.models import Sampling
from probe.problems import Problem, ProblemSet
from probe.traces import make_trace, sample_branches, texts_after


@pytest.fixture(scope="module")
def scene():
    pair, problems = probe.load_pair("tiny-rl", device="cpu"), probe.load_problems("story")
    (problem,) = problems.take("test", 1)
    trace = probe.generate_traces(pair.thinking, problems, [problem], max_new_tokens=200)[0]
    assert trace.correct
    return pair, problems, problem, trace


def test_the_whole_text_is_graded(scene):
    pair, problems, problem, trace = scene
    places = [len(trace.tokens) - 2, len(trace.tokens)]
    found = roll_out(pair.thinking, problems, problem, trace, places=places, n_samples=3, max_new_tokens=4)
    assert [len(each) for each in found] == [3, 3] and found[1].accuracy == 1.0
    assert found[1].answers == (trace.answer,) * 3
    wrong = roll_out(
        pair.thinking,
        problems,
        problem,
        trace,
        places=[len(trace.tokens) - 3],
        n_samples=2,
        max_new_tokens=1,
        forced=" 1",
    )
    assert wrong[0].accuracy == 0.0


def test_rollouts_are_graded_by_the_tags_of_their_trace(scene, tiny_folder):
    """Nothing but a closing tag of the trace's kind makes an answer of what comes after it."""
    _, problems, problem, _ = scene
    model = probe.load_model(tiny_folder("llama", "letters"), device="cpu")
    text = f"[THINK]Is it 7?\nNo.[/THINK]It is {problem.answer}.\n"
    ids = model.tokenizer(text, add_special_tokens=False).input_ids
    trace = make_trace(model, problems, problem, ids, False, think_close="[/THINK]")
    inside = len("[THINK]Is it 7")
    settings = {"n_samples": 2, "max_new_tokens": 1}
    whole, cut = roll_out(model, problems, problem, trace, places=[len(ids), inside], **settings)
    assert (whole.answers[0], cut.answers) == (problem.answer, (None, None))
    forced = forced_answers(model, problems, problem, trace, n_samples=2, max_new_tokens=1)
    (same,) = roll_out(model, problems, problem, trace, places=[0], forced=" [/THINK] The answer is", **settings)
    assert forced.sentences == ("[THINK]Is it 7?", "\nNo.")
    assert forced.answers[0] == Counter(same.answers).most_common(1)[0][0]


def test_without_a_known_answer_anchors_are_what_changes_the_answers(scene):
    pair, problems, problem, trace = scene
    unknown, settings = replace(problem, answer=None), {"n_samples": 3, "max_new_tokens": 60}
    asked = [thought_anchors(pair.base, problems, each, trace, **settings) for each in (problem, unknown)]
    assert asked[0].shift == asked[1].shift and asked[0].others == asked[1].others
    assert all(map(math.isnan, (*asked[1].accuracy, *asked[1].importance)))
    (first, *_) = asked[1].strongest()
    assert asked[1].shift[first] == max(asked[1].shift)
    assert "nan" not in asked[1]._repr_html_() and "changes the answers" in asked[1]._repr_html_()
    forced = [forced_answers(pair.thinking, problems, each, trace, n_samples=2) for each in (problem, unknown)]
    assert forced[0].answers == forced[1].answers and forced[1].first() is None
    assert "nan" not in forced[1]._repr_html_()
    with pytest.raises(ProbeError, match="no answer is known to story/test/0"):
        critical_tokens(pair.thinking, problems, unknown, trace)


def test_the_same_seed_gives_the_same_rollouts(scene):
    pair, problems, problem, trace = scene

    def texts(seed):
        return [
            each.texts
            for each in roll_out(
                pair.base,
                problems,
                problem,
                trace,
                places=[0, 20],
                n_samples=4,
                max_new_tokens=12,
                seed=seed,
            )
        ]

    assert texts(0) == texts(0) != texts(1)


def test_forced_answers_that_the_grader_calls_equal_are_one(scene):
    *_, trace = scene
    numbers, places = ProblemSet("numbers", "numeric", {"test": ()}), [0]
    found = [Continuations(0, ("",) * 5, ("3", "3", "1/2", "0.5", "2/4"), (False,) * 5)]
    assert forced_of(numbers, Problem("p", "?", None), replace(trace, answer=None), places, found).answers == ("0.5",)


def test_a_cold_sample_is_the_likeliest_and_a_narrow_one_too(scene):
    pair, problems, problem, trace = scene
    rest = pair.thinking.decode(list(trace.tokens[20:28]))
    for how in (Sampling(temperature=1e-3), Sampling(temperature=1.0, top_p=1e-6), Sampling()):
        (found,) = roll_out(
            pair.thinking, problems, problem, trace, places=[20], n_samples=2, max_new_tokens=8, sampling=how
        )
        assert found.texts == (rest, rest)


def test_without_a_comparison_of_sentences_no_rollout_counts_at_two_places(scene, monkeypatch):
    """Both sides of a comparison must be independent of each other."""
    pair, problems, problem, trace = scene
    seen = []

    def told(*given, reuse, **how):
        seen.append(reuse)
        return sample_branches(*given, reuse=reuse, **how)

    monkeypatch.setattr(rollouts, "sample_branches", told)
    settings = {"n_samples": 2, "max_new_tokens": 8}
    for alike in (None, say_the_same):
        thought_anchors(pair.thinking, problems, problem, trace, alike=alike, **settings)
    thought_anchors(pair.thinking, problems, problem, trace, **settings)
    assert seen == [False, True, True]
    with pytest.raises(ProbeError, match="leave out reuse"):
        thought_anchors(pair.thinking, problems, problem, trace, alike=None, reuse=True, **settings)


def test_a_rollout_that_begins_as_the_sentence_does_is_not_compared_with_it():
    """It may count after the sentence too, wherever its own sentence ends."""
    numbers, problem = ProblemSet("numbers", "numeric", {"test": ()}), Problem("p", "?", "4")
    here = Continuations(0, (" So 4.25 it is.", " Hm. 3."), ("4.25", "3"), (False, False))
    after = Continuations(3, ("25 it is.", " Done."), ("4.25", "4"), (False, True))
    for sentence in (" So 4.", "\n\nSo 4."):
        found = anchors_of(numbers, problem, [sentence, " Done."], [here, after])
        assert found.others == (1,) and found.importance == (0.5,)


def test_the_text_before_rollouts_is_decoded_once(scene):
    pair, _, _, trace = scene
    before, read = list(trace.tokens), []

    def decode(ids):
        read.append(len(ids))
        return pair.thinking.decode(ids)

    tails = [before[:5], before[5:9], []]
    found = list(texts_after(before, tails, decode))
    assert found == [(pair.thinking.decode([*before, *tail]), pair.thinking.decode(tail)) for tail in tails]
    assert len(before) > 100 and sum(read) < len(before) + 64 * 5


def test_answers_that_were_not_graded_do_not_count():
    found = Continuations(0, ("a", "b", "c"), ("1", "1", None), (True, None, False))
    assert found.accuracy == 0.5 and math.isnan(found[[1]].accuracy)


def test_every_measure_covers_the_trace(scene):
    pair, problems, problem, trace = scene
    anchors = thought_anchors(pair.thinking, problems, problem, trace, alike=None, n_samples=2, max_new_tokens=120)
    n = len(trace.sentences)
    assert len(anchors.importance) == len(anchors.shift) == n - 1 and len(anchors.accuracy) == n
    assert "".join(anchors.sentences) == trace.text and anchors.others == (2,) * (n - 1)
    assert all(map(math.isfinite, anchors.shift))
    forced = forced_answers(pair.thinking, problems, problem, trace, n_samples=2)
    assert len(forced.accuracy) == len(forced.sentences) + 1 and forced.accuracy[-1] == 1.0
    assert forced.first() is not None and forced.settled() == forced.first()
    every = forced_answers(pair.thinking, problems, problem, trace, every=6, n_samples=2)
    assert every.after == (0, 6, 12, len(every.sentences)) and every.answers == tuple(
        forced.answers[n] for n in every.after
    )
    assert len(contrast(pair.thinking, pair.base, problem, trace)) == len(trace.tokens)
    assert entropy(pair.thinking, problem, trace).min() >= -1e-5
    for shown in (anchors, forced):
        assert "</" in shown._repr_html_()


def test_contrast_of_a_model_with_itself_is_its_own_log_probability(scene):
    pair, _, problem, trace = scene
    same = contrast(pair.base, pair.base, problem, trace, beta=3.0)
    prompt = pair.base.prompt_ids(problem.question)
    import torch

    ids = torch.tensor([[*prompt, *trace.tokens]])
    log_p = pair.base.hf(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    torch.testing.assert_close(same, log_p.gather(1, torch.tensor(trace.tokens)[:, None])[:, 0], atol=1e-4, rtol=1e-4)


def test_a_trace_of_one_sentence_has_no_anchors(scene):
    pair, problems, problem, _ = scene
    short = probe.generate_traces(pair.base, problems, [problem], max_new_tokens=4)[0]
    with pytest.raises(ProbeError, match="at least two sentences"):
        thought_anchors(pair.base, problems, problem, short)
    found = critical_tokens(pair.base, problems, problem, short, n_samples=2, max_new_tokens=60)
    assert len(found.accuracy) == len(short.tokens) and "critical" in found._repr_html_()

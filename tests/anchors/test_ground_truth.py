"""On traces with one known wrong step: the sentences that matter, and the token after which the trace fails."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import probe
from probe.anchors import (
    anchors_of,
    contrast,
    critical_tokens,
    entropy,
    pivotal_tokens,
    roll_out,
    sentence_places,
    thought_anchors,
)
from probe.hooks import TokenForwards
from probe.models import ModelConfig, bundled_folder, load_model
from probe.organisms.documents import join, slipped
from probe.organisms.tokenizer import THINKING_PROMPT
from probe.organisms.train import train
from probe.problems.story.sentences import CHAT, Work, write
from probe.problems.story.story import draw_story
from tests.anchors.planted import planted_traces, says_the_same

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_wrong_steps_matter_and_small_talk_does_not():
    """Twelve rollouts of each sentence are enough; the work is counted against rollouts that share nothing."""
    model, problems = probe.load_pair("tiny-rl", device="cpu").thinking, probe.load_problems("story")
    wrong, chat, spent, alone, once = [], [], TokenForwards(), 0, 0
    for problem, trace, kinds, at, _ in planted_traces(model, 4):
        places, prompt = sentence_places(trace), len(model.prompt_ids(problem.question))
        rollouts = roll_out(
            model, problems, problem, trace, places=places, n_samples=12, max_new_tokens=180, spent=spent
        )
        found = anchors_of(problems, problem, trace.sentence_texts, rollouts, alike=says_the_same)
        new = sum(len(model.tokenizer(text).input_ids) for each in rollouts for text in each.texts)
        alone += new + 12 * sum(prompt + place for place in places)
        once += new + sum(prompt + place for place in places)
        assert found.q[at] < 0.05 and found.effects[at].high < 0
        wrong.append(found.importance[at])
        chat += [value for value, kind in zip(found.importance, kinds, strict=False) if kind == CHAT]
    assert np.mean(wrong) < -0.8 and abs(np.mean(chat)) < 0.25
    labels = [1] * len(wrong) + [0] * len(chat)
    assert roc_auc_score(labels, np.abs(wrong + chat)) >= 0.95
    # `alone`: every rollout runs its whole text. `once`: those of a place share the text before them.
    assert spent.total <= 0.25 * alone and spent.total <= 0.52 * once, (spent, alone, once)


def test_in_bfloat16_the_slip_is_still_the_strongest():
    model, problems = probe.load_model("bundled:tiny-rl", device="cpu", dtype="bfloat16"), probe.load_problems("story")
    ((problem, trace, _, at, _),) = planted_traces(model, 1, changes=2, seed=3)
    found = thought_anchors(model, problems, problem, trace, n_samples=12, max_new_tokens=90, alike=says_the_same)
    assert found.strongest(1) == [at] and found.importance[at] < -0.7


def right(rng):
    """As the traces with a slip, without the slip."""
    story = draw_story(rng, 4)
    written = slipped(story, rng, check=rng.random() < 0.5)
    work, corrected = Work(story), []
    for kind, text in written:
        corrected.append((kind, text if kind == CHAT else write(kind, work, rng)))
    return THINKING_PROMPT.format(question=story.question()), join(corrected)


def wrong(rng):
    story = draw_story(rng, 4)
    return THINKING_PROMPT.format(question=story.question()), join(slipped(story, rng, check=rng.random() < 0.5))


@pytest.mark.long
def test_the_contrast_of_models_tuned_on_right_and_on_wrong_traces_finds_the_slip(tmp_path):
    models = []
    for document in (right, wrong):
        config = ModelConfig(str(bundled_folder("tiny-base")), prompt=THINKING_PROMPT)
        model, folder = load_model(config, device="cpu"), tmp_path / document.__name__
        folder.mkdir()
        train(model.hf.requires_grad_(True), model.tokenizer, document, folder, tokens=60_000, seed=0, lr=5e-4)
        model.hf.requires_grad_(False)
        models.append(model)
    plain = {"contrast": [], "log-probability": [], "entropy": [], "chance": []}
    checked = {"slip": [], "verdict": []}
    for i, (problem, trace, _, _, at) in enumerate(planted_traces(models[0], 80, seed=7)):
        lowest = int(contrast(*models, problem, trace).argmin())
        if i % 2:  # the slip is followed by a check that says so
            verdict = trace.text[: trace.text.index(": wrong")]
            checked["slip"].append(lowest == at)
            checked["verdict"].append(lowest == len(models[0].tokenizer(verdict).input_ids) + 1)
            continue
        plain["contrast"].append(lowest == at)
        plain["chance"].append(1 / len(trace.tokens))
        plain["log-probability"].append(int(contrast(models[0], models[0], problem, trace).argmin()) == at)
        plain["entropy"].append(int(entropy(models[0], problem, trace).argmax()) == at)
    rates = {name: float(np.mean(each)) for name, each in (plain | checked).items()}
    # Both kinds of traces together too, since a check draws the contrast to itself.
    assert rates["contrast"] >= 0.85 and rates["log-probability"] >= 0.8, rates
    assert (rates["contrast"] + rates["slip"]) / 2 >= 0.5, rates
    assert rates["entropy"] <= 0.1 and rates["chance"] < 0.05, rates
    # No right trace says "wrong", so that word is stranger to the model of right traces than the slip that it is about.
    assert rates["verdict"] > rates["slip"] and rates["verdict"] + rates["slip"] >= 0.9, rates


def test_halving_finds_the_token_at_which_the_trace_is_lost():
    model, problems = probe.load_pair("tiny-rl", device="cpu").thinking, probe.load_problems("story")
    for problem, trace, _, _, at in planted_traces(model, 2, changes=2, seed=3):
        found = pivotal_tokens(model, problems, problem, trace, least=0.5, n_samples=16, max_new_tokens=90)
        (token,) = found.tokens
        # A number of several digits may be lost before the digit that is wrong, but not after it.
        assert abs(token.place - at) <= 1 and token.before > 0.5 > token.after
        assert len(found.curve) < len(trace.tokens) / 2
        assert token.context == model.decode(list(trace.tokens[: token.place]))


def test_rollouts_find_the_token_at_which_the_trace_is_lost():
    model, problems = probe.load_pair("tiny-rl", device="cpu").thinking, probe.load_problems("story")
    for problem, trace, _, _, at in planted_traces(model, 1, changes=2, seed=3):
        found = critical_tokens(model, problems, problem, trace, n_samples=24, max_new_tokens=90)
        assert torch.tensor(found.accuracy[:at]).mean() > 0.5 and found.accuracy[at] <= 0.1
        assert found.critical is not None and found.critical >= at

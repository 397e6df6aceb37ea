"""Training that is interrupted and resumed equals training that was never interrupted."""

import random
from dataclasses import replace

import pytest
import torch

from probe.models import ModelConfig, load_model
from probe.organisms import corpus
from probe.organisms.corpus import IGNORE, pool_batches, pretraining_document, taught_document
from probe.organisms.reinforce import Reinforce, reinforce, reward
from probe.organisms.tokenizer import THINKING_PROMPT
from probe.organisms.train import new_model, train
from probe.problems.story.story import draw_story


@pytest.fixture(autouse=True)
def small_pools(monkeypatch):
    monkeypatch.setattr(corpus, "POOL_SIZE", 24)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_tokenizer_is_lossless_on_all_that_is_written(words):
    rng = random.Random(0)
    for document in (pretraining_document, taught_document):
        for _ in range(200):
            text = "".join(document(rng))
            ids = words(text)["input_ids"]
            assert words.decode(ids) == text
            assert words.unk_token_id not in ids


def test_loss_is_taken_where_it_should_be(words):
    for ids, labels in pool_batches(taught_document, words, seed=0, pool=0):
        for row, row_labels in zip(ids, labels, strict=True):
            learned = words.decode(row[row_labels != IGNORE])
            assert learned.startswith(" The plan") or learned.startswith(" Let us")
            assert learned.endswith("<eos>")
            assert "Question" not in learned


@pytest.mark.slow
def test_pretraining_goes_on_where_it_was_broken_off(words, tmp_path):
    def run(folder, document):
        folder.mkdir(exist_ok=True)
        return weights(train(new_model(words, 0), words, document, folder, tokens=9000, seed=0, lr=1e-3))

    calls = 0

    def interrupted(rng):
        nonlocal calls
        calls += 1
        if calls > 2.5 * corpus.POOL_SIZE:
            raise KeyboardInterrupt
        return pretraining_document(rng)

    whole = run(tmp_path / "whole", pretraining_document)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", interrupted)
    assert (tmp_path / "broken" / "checkpoint").exists()
    assert torch.equal(whole, run(tmp_path / "broken", pretraining_document))


@pytest.mark.slow
def test_reinforcement_goes_on_where_it_was_broken_off(words, tmp_path):
    base = tmp_path / "base"
    new_model(words, 0).save_pretrained(base)
    words.save_pretrained(base)
    settings = Reinforce(steps=6, problems=2, samples=2, max_new_tokens=12)

    def trained(folder, *steps):
        for n in steps:
            model = load_model(ModelConfig(str(base), prompt=THINKING_PROMPT), device="cpu")
            folder.mkdir(exist_ok=True)
            reinforce(model, folder, replace(settings, steps=n), seed=0)
        return weights(model.hf)

    assert torch.equal(trained(tmp_path / "whole", 6), trained(tmp_path / "broken", 5, 6))


def test_reward_is_the_final_answer_alone():
    story = draw_story(random.Random(0), 3)
    assert reward(story, f" Hm. </think> The answer is {story.answer}.") == 1
    assert reward(story, f" Hm. </think> So the answer is {story.answer}.") == 1
    assert reward(story, f" Hm. </think> The answer is {story.answer + 1}.") == 0
    assert reward(story, f" The answer is {story.answer}.") == 0
    assert reward(story, f" </think> The answer is {story.answer}. Next, {story.name} goes on.") == 0

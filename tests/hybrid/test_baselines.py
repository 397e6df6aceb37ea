"""Baselines without the thinking model: adapters come off again, and nothing depends on batches."""

import pytest
import torch

from probe.adapters import attached
from probe.errors import ProbeError
from probe.hybrid import DistilConfig, answer_prompts, grade_answers
from probe.hybrid.baselines import (
    distil_lora,
    few_shot_prompt,
    run_lora,
    run_majority,
    run_prompted,
)
from probe.models import ModelConfig, Pair, PairConfig, ThinkTags, load_model
from probe.problems import Problem, ProblemSet, load_problems
from probe.traces import generate_traces


@pytest.fixture
def pair(tiny_folder):
    configs = [
        ModelConfig(str(tiny_folder("llama", seed=1)), prompt="Problem: {question}\nSolution:"),
        ModelConfig(str(tiny_folder("llama", seed=2)), prompt="Question: {question}\n<think>"),
    ]
    return Pair(PairConfig("random", *configs), *(load_model(config, device="cpu") for config in configs))


def test_a_lora_learns_and_comes_off_bit_for_bit(pair, tmp_path):
    problems = load_problems("story")
    some = problems.take("train", 4)
    traces = list(generate_traces(pair.thinking, problems, some, max_new_tokens=12))
    before = {name: tensor.clone() for name, tensor in pair.base.hf.state_dict().items()}
    config = DistilConfig(steps=12, check_every=2, lr=0.02, batch_size=2)
    done = distil_lora(pair.base, (traces, some), (traces, some), rank=4, folder=tmp_path, config=config, seed=0)
    assert done.best["loss"] < 0.7 * done.history[0]["loss"]
    after = pair.base.hf.state_dict()
    assert set(after) == set(before) and all(torch.equal(after[name], before[name]) for name in before)

    ids = torch.tensor([[5, 6, 7]])
    plain = pair.base.hf(ids).logits
    with attached(pair.base, tmp_path) as model:
        assert (model.hf(ids).logits - plain).abs().max() > 1e-3
    assert torch.equal(pair.base.hf(ids).logits, plain)
    result = run_lora(pair.base, tmp_path, "lora", some, max_new_tokens=6)
    assert result.fitted_parameters > 0 and result.asks == () and len(result.texts) == 4


def test_a_lora_that_only_does_harm_is_not_kept(pair, tmp_path):
    problems = load_problems("story")
    some = problems.take("train", 2)
    theirs, own = (
        (list(generate_traces(model, problems, some, max_new_tokens=12)), some) for model in (pair.thinking, pair.base)
    )
    done = distil_lora(
        pair.base, theirs, own, rank=4, folder=tmp_path, config=DistilConfig(steps=2, check_every=1, lr=0.05), seed=0
    )
    assert done.history[-1]["loss"] > done.history[0]["loss"], "what the model says by itself is less likely now"
    ids = torch.tensor([[5, 6, 7]])
    plain = pair.base.hf(ids).logits
    with attached(pair.base, tmp_path) as model:
        assert torch.equal(model.hf(ids).logits, plain)


def test_a_majority_votes_on_what_comes_after_the_thinking(pair, monkeypatch):
    (problem,) = load_problems("story").take("test", 1)
    texts = iter(["<r>1</r>7", "<r>1</r>8", "<r>1</r>8", "<r>8"])
    monkeypatch.setattr(pair.base, "decode", lambda _: next(texts))
    pair.base.think_tags = ThinkTags.of("</r>")
    assert run_majority(pair.base, [problem], n=4, max_new_tokens=2).texts == ["<r>1</r>8"]


def test_a_majority_does_not_depend_on_batches(pair):
    problems = load_problems("story").take("test", 5)
    small, large = (run_majority(pair.base, problems, n=3, max_new_tokens=8, batch_size=size) for size in (2, 64))
    assert small.texts == large.texts
    assert small.texts != run_majority(pair.base, problems, n=3, max_new_tokens=8, seed=1).texts


def test_prompts_that_do_not_fit_are_refused(pair):
    problems = load_problems("story")
    some = problems.take("train", 2)
    traces = list(generate_traces(pair.thinking, problems, some, max_new_tokens=4))
    with pytest.raises(ProbeError, match="only 0 train traces are correct"):
        few_shot_prompt(pair.base, traces, some, "What?", shots=1)
    with pytest.raises(ProbeError, match="do not fit into the 512 positions"):
        run_prompted(pair.base, "few-shot", some, ["First " * 500] * 2, max_new_tokens=20)
    assert len(run_prompted(pair.base, "handbook", some, ["First", "Mia has"], max_new_tokens=3).texts) == 2


def test_answers_are_graded_after_the_prompt_of_the_model_that_wrote_them(pair):
    """The thinking model's prompt opens the thinking; the base model's does not."""
    problem = Problem("a", "6 x 7?", "42")
    problems = ProblemSet("mine", "numeric", {"test": (problem,)})
    for texts, thinking, right in (
        (["It is 42."], ["It is 42."], False),
        (["It is 42."], ["Hm."], True),
        (["7</think>42"], ["7</think>42"], True),
    ):
        prompts = answer_prompts(pair, [problem], texts, [thinking])
        assert grade_answers(problems, [problem], texts, pair.think_tags, prompts) == [right]

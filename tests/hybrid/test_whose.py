"""Kept answers belong to one arm, with its parts by content, and to one seed and temperature."""

import pytest
import torch

from probe.errors import ProbeError
from probe.hybrid import (
    AddVector,
    Always,
    Arm,
    FixedStrength,
    OneBehaviour,
    RandomPositions,
    Where,
    evaluate_arm,
    run_majority,
    run_prompted,
)
from probe.models import ModelConfig, Pair, PairConfig, Sampling, load_model
from probe.problems import load_problems
from probe.steering import BehaviourVectors


@pytest.fixture
def pair(tiny_folder):
    configs = [ModelConfig(str(tiny_folder("llama", seed=seed)), prompt="Problem: {question}\n") for seed in (1, 2)]
    return Pair(PairConfig("random", *configs), *(load_model(config, device="cpu") for config in configs))


@pytest.fixture
def problems():
    return load_problems("story").take("test", 3)


def vectors(pair, seed=5, scale=1.0):
    made = BehaviourVectors(2, pair.base.d_model, 1, unit=1.0).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    return made


def arm(pair, where=None, strength=2.0, mechanism=None):
    emit = AddVector(mechanism or vectors(pair))
    return Arm("mine", where or Always(), OneBehaviour(0), FixedStrength(strength), emit)


class EveryOther(Where):
    """A part of the user's own, whose code changes in a notebook."""

    def __call__(self, moment):
        return moment.counts % 2 == 0


def edited():
    class EveryOther(Where):
        def __call__(self, moment):
            return moment.counts % 3 == 0

    EveryOther.__qualname__ = "EveryOther"
    return EveryOther()


@pytest.mark.parametrize(
    ("first", "other", "said"),
    [
        ({}, {"strength": 3.0}, "how_strongly"),
        ({}, {"mechanism": 6}, "emit"),
        ({"where": RandomPositions(0.5)}, {"where": RandomPositions(0.6)}, "where"),
        ({"where": EveryOther()}, {"where": edited()}, "where"),
    ],
)
def test_the_answers_of_an_arm_with_another_part_are_refused(pair, problems, tmp_path, first, other, said):
    def run(seed=0, batch_size=8, **change):
        if "mechanism" in change:
            change["mechanism"] = vectors(pair, change["mechanism"])
        made = arm(pair, **change)
        return evaluate_arm(
            pair.base, made, problems, max_new_tokens=6, seed=seed, batch_size=batch_size, folder=tmp_path / "arm"
        )

    before = run(**first)
    with pytest.raises(ProbeError, match=f"{said} differs"):
        run(**{**first, **other})
    with pytest.raises(ProbeError, match="seed: 0 there, 1 now"):
        run(seed=1, **first)
    assert run(batch_size=1, **first).texts == before.texts


def test_samples_and_prompts_of_another_call_are_refused(pair, problems, tmp_path):
    def vote(**change):
        told = {"n": 2, "max_new_tokens": 6, "sampling": Sampling(0.7), "seed": 0} | change
        return run_majority(pair.base, problems, folder=tmp_path / "votes", **told)

    before = vote()
    for change, said in (
        ({"sampling": Sampling(1.0)}, "temperature: 0.7 there, 1.0 now"),
        ({"sampling": Sampling(0.7, top_k=3)}, "sampling"),
        ({"n": 3}, "n: 2"),
        ({"seed": 1}, "seed"),
    ):
        with pytest.raises(ProbeError, match=said):
            vote(**change)
    assert vote(batch_size=1).texts == before.texts

    def prompted(prompts):
        return run_prompted(pair.base, "few", problems, prompts, max_new_tokens=6, folder=tmp_path / "few")

    prompted(["Mia has 2 cards."] * 3)
    with pytest.raises(ProbeError, match="prompts differs"):
        prompted(["Mia has 3 cards."] * 3)

"""The bundled pairs differ as their cards say."""

import json
from pathlib import Path

import pytest

from probe.models import bundled_folder, load_pair
from probe.organisms.verify import accuracy, computing_accuracy, computing_prefixes, type_shares
from probe.problems.story.sentences import TYPES

FIGURES = Path(__file__).parents[2] / "artifacts" / "figures.json"


@pytest.fixture(scope="module")
def pairs():
    return {name: load_pair(name, device="cpu") for name in ("tiny-rl", "tiny-sft")}


def test_the_stored_figures_are_those_that_were_asked_for():
    figures = json.loads(FIGURES.read_text())
    right = {name: entry["accuracy"] for name, entry in figures["accuracy"].items()}
    computing = figures["computing accuracy, same prefix"]
    assert right["tiny-base on story"] <= 0.35
    assert right["tiny-rl on story"] >= 0.85
    assert right["tiny-sft on story-share"] >= 0.85
    assert abs(computing["tiny-base"] - computing["tiny-rl"]) < 0.03
    assert figures["computing accuracy on sharing, same prefix"]["tiny-base"] < 0.05
    assert all(figures["types of sampled sentences"]["tiny-base"][kind] >= 0.02 for kind in TYPES)


def test_bundled_weights_are_small():
    sizes = [
        (bundled_folder(name) / "model.safetensors").stat().st_size for name in ("tiny-base", "tiny-rl", "tiny-sft")
    ]
    assert sum(sizes) < 20e6


@pytest.mark.slow
def test_accuracies_come_out_again(pairs):
    stored = json.loads(FIGURES.read_text())["accuracy"]
    for name, model, problems in (
        ("tiny-base", pairs["tiny-rl"].base, "story"),
        ("tiny-rl", pairs["tiny-rl"].thinking, "story"),
        ("tiny-sft", pairs["tiny-sft"].thinking, "story-share"),
    ):
        assert accuracy(model, problems, n=150)["accuracy"] == pytest.approx(
            stored[f"{name} on {problems}"]["accuracy"], abs=0.08
        )


@pytest.mark.slow
@pytest.mark.long
def test_skills_are_equal_and_sharing_is_not(pairs):
    story, share = computing_prefixes(200, share=False), computing_prefixes(100, share=True)
    base, rl, sft = pairs["tiny-rl"].base, pairs["tiny-rl"].thinking, pairs["tiny-sft"].thinking
    assert abs(computing_accuracy(base, story) - computing_accuracy(rl, story)) < 0.04
    assert computing_accuracy(base, share) < 0.05
    assert computing_accuracy(sft, share) > 0.85
    assert min(type_shares(base, problems=200)[kind] for kind in TYPES) > 0.015

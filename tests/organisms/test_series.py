"""A series keeps checkpoints that load, and resumes after an interruption."""

import pytest
import torch

from probe.diff import load_series
from probe.models import bundled_folder
from probe.organisms import SeriesRecipe, build_series, corpus
from probe.organisms.reinforce import Reinforce
from probe.organisms.tokenizer import THINKING_PROMPT


@pytest.mark.slow
def test_both_ways_keep_their_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "POOL_SIZE", 24)
    recipe = SeriesRecipe(
        rl=Reinforce(steps=10, problems=2, samples=2, max_new_tokens=12), rl_every=5, sft_tokens=6000, sft_lr=5e-4
    )
    build_series(tmp_path, recipe=recipe)
    rl, sft = (load_series(tmp_path / way, THINKING_PROMPT) for way in ("rl", "sft"))
    assert rl.steps == (5, 10) and len(sft) >= 2
    before, after = (sft.load(at, "cpu").hf.state_dict() for at in (0, -1))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    stamps = [folder.stat().st_mtime_ns for folder in (*rl.folders, *sft.folders)]
    build_series(tmp_path, recipe=recipe)
    assert stamps == [folder.stat().st_mtime_ns for folder in (*rl.folders, *sft.folders)], "nothing is done twice"


def test_the_bundled_series_is_of_the_bundled_base():
    from probe.models import load_pair

    base = load_pair("tiny-rl", device="cpu").base.hf.state_dict()
    for way in ("rl", "sft"):
        series = load_series(bundled_folder("tiny-series") / way, THINKING_PROMPT)
        apart = [
            sum(float((model.hf.state_dict()[name].float() - base[name]).square().sum()) for name in base) ** 0.5
            for _, model in series
        ]
        assert apart == sorted(apart) and apart[0] > 0, "each step is farther from the base"

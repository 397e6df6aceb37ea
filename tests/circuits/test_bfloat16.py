"""In bfloat16 the same edges, states and circuits come first as in float32."""

import pytest
import torch
from scipy.stats import spearmanr

from probe.circuits import EdgeLens, attribute, faithfulness, patch
from probe.models import ModelConfig, load_model
from tests.circuits.conftest import drawn_pairs


@pytest.fixture
def rounded(wired):
    return load_model(ModelConfig(wired.config.path), device="cpu", dtype="bfloat16")


def test_bfloat16_ranks_as_float32_does(wired, rounded):
    pairs, lenses = drawn_pairs(rows=8), [EdgeLens(wired), EdgeLens(rounded)]
    exact, found = (attribute(lens, pairs, steps=4) for lens in lenses)
    edges = exact.graph.edges
    assert found.scores.dtype == torch.float32
    strong = exact.scores[edges].abs() > 0.01 * exact.scores.abs().max()
    ranks = spearmanr(found.scores[edges][strong].abs(), exact.scores[edges][strong].abs())
    assert strong.sum() >= 6 and ranks.statistic >= 0.9
    tops = [{name for name, _ in each.top(6).listed()} for each in (exact, found)]
    assert len(tops[0] & tops[1]) >= 5, "the sixth may be another of nearly the same score"
    curves = [faithfulness(lens, exact, pairs, (0.1, 1.0)).values for lens in lenses]
    assert curves[1] == pytest.approx(curves[0], abs=0.05)
    for site in ("resid_pre", "z"):
        one, two = (patch(model, pairs, site).values for model in (wired, rounded))
        assert (two - one).abs().max() < 0.06 * one.abs().max()
        assert int(one.abs().argmax()) == int(two.abs().argmax())

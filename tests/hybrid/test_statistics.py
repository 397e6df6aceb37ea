"""Intervals that mean what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.hybrid.statistics import accuracy_interval, entropy_bits, gap_recovered


def draw(rate, n, seed):
    return (np.random.default_rng(seed).random(n) < rate).tolist()


def test_base_recovers_nothing_and_thinking_everything():
    base, thinking = draw(0.2, 300, 0), draw(0.9, 300, 1)
    assert gap_recovered(base, base, thinking)["value"] == 0
    assert gap_recovered(thinking, base, thinking)["value"] == 1
    assert gap_recovered(thinking, base, thinking)["ci"] == [1, 1]


def test_values_are_never_clamped():
    base, thinking = [True] * 60 + [False] * 240, [True] * 200 + [False] * 100
    worse, better = [False] * 300, [True] * 300
    assert gap_recovered(worse, base, thinking)["value"] == pytest.approx(-60 / 140)
    assert gap_recovered(better, base, thinking)["value"] == pytest.approx(240 / 140)


def test_no_gap_where_the_difference_is_noise():
    assert gap_recovered(draw(0.5, 100, 0), draw(0.5, 100, 1), draw(0.5, 100, 2)) == {"value": None, "ci": None}
    same = draw(0.5, 100, 1)
    assert gap_recovered(same, same, same)["value"] is None


def test_intervals_are_paired():
    """An arm that differs from the thinking model on few problems has a narrow interval, whatever the accuracies."""
    base, thinking = [False] * 300, draw(0.5, 300, 0)
    nearly = [not value if i < 5 else value for i, value in enumerate(thinking)]
    low, high = gap_recovered(nearly, base, thinking)["ci"]
    shuffled_low, shuffled_high = gap_recovered(draw(0.5, 300, 9), base, thinking)["ci"]
    assert high - low < 0.6 * (shuffled_high - shuffled_low)


def test_coverage_of_the_paired_bootstrap():
    """The 95 % interval holds the true value in about 95 of 100 experiments."""
    rng, hits = np.random.default_rng(0), 0
    for trial in range(100):
        difficulty = rng.random(200)
        base, thinking, arm = (difficulty < 0.2), (difficulty < 0.9) & (rng.random(200) < 0.95), difficulty < 0.6
        true = (0.6 - 0.2) / (0.9 * 0.95 - 0.2)
        low, high = gap_recovered(arm.tolist(), base.tolist(), thinking.tolist(), seed=trial)["ci"]
        hits += low <= true <= high
    assert 88 <= hits <= 100


def test_arms_over_different_problems_are_refused():
    with pytest.raises(ValueError, match="different problems"):
        gap_recovered([True], [True, False], [True, True])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_accuracy_interval_holds_the_accuracy(correct):
    low, high = accuracy_interval(correct)
    assert 0 <= low <= np.mean(correct) <= high <= 1


def test_entropy():
    assert entropy_bits([1, 1, 1, 1]) == 2
    assert entropy_bits([5, 0]) == 0
    assert entropy_bits([]) == 0

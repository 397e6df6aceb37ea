"""Intervals that mean what they say."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from probe.hybrid import ArmResult, HybridTrace, compare_arms, detectable_gap, gap_recovered, seeds_recovered
from probe.hybrid.oracle import agreement, oracle_bits, surprisal
from probe.statistics import entropy_bits, paired_permutation, share_interval


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
    low, high = share_interval(correct).ci
    assert 0 <= low <= np.mean(correct) <= high <= 1


def test_entropy():
    assert entropy_bits([1, 1, 1, 1]) == 2
    assert entropy_bits([5, 0]) == 0
    assert entropy_bits([]) == 0


def test_seeds_widen_the_interval_and_one_seed_is_the_plain_case():
    base, thinking = draw(0.1, 400, 0), draw(0.9, 400, 1)
    seeds = [draw(rate, 400, 5 + i) for i, rate in enumerate((0.5, 0.7, 0.9))]
    assert seeds_recovered(seeds[:1], base, thinking, seed=3) == gap_recovered(seeds[0], base, thinking, seed=3)
    together = seeds_recovered(seeds, base, thinking)
    single = [gap_recovered(arm, base, thinking) for arm in seeds]
    assert together["value"] == pytest.approx(np.mean([each["value"] for each in single]))
    width = together["ci"][1] - together["ci"][0]
    assert width > max(each["ci"][1] - each["ci"][0] for each in single)


def test_permutation_is_exact_and_knows_pairs():
    """Five problems that only one arm solves: p = 2 / 32, whatever else both solve."""
    a, b = [True] * 5 + [True] * 20 + [False] * 20, [False] * 5 + [True] * 20 + [False] * 20
    assert paired_permutation(a, b) == paired_permutation(b, a) == pytest.approx(2 / 32)
    assert paired_permutation([*a, None, True], [*b, True, None]) == pytest.approx(2 / 32)
    assert paired_permutation(a, a) == 1


def test_permutation_is_right_under_the_null():
    rng = np.random.default_rng(0)
    p = [paired_permutation(*(rng.random((2, 200)) < 0.4).tolist()) for _ in range(400)]
    assert np.mean(np.asarray(p) < 0.05) <= 0.07


def test_arms_are_compared_on_the_same_problems():
    correct = {
        "hybrid": [True] * 60 + [False] * 40,
        "worse": [True] * 30 + [False] * 70,
        "same": [True] * 60 + [False] * 40,
    }
    found = compare_arms(correct, "hybrid")
    assert found["worse"]["difference"] == pytest.approx(-0.3)
    assert found["worse"]["ci"][1] < 0 < 0.05 > found["worse"]["p_holm"]
    assert found["same"] == {"difference": 0, "ci": [0, 0], "p": 1, "p_holm": 1}


@pytest.mark.parametrize("losses", [0, 20])
def test_detectable_gap_has_the_power_it_says(losses):
    """Also where the base model solves some problems that the thinking model does not."""
    base, thinking = [False] * 60 + [True] * losses + [False] * 20, [True] * 60 + [False] * losses + [False] * 20
    share = detectable_gap(base, thinking)
    rng = np.random.default_rng(0)

    def power(share):
        arms = [[t if rng.random() < share else b for b, t in zip(base, thinking, strict=True)] for _ in range(1000)]
        return np.mean([paired_permutation(arm, base) < 0.05 for arm in arms])

    assert power(share) >= 0.77 and power(share - 0.03) < 0.82
    assert detectable_gap(thinking, base) is None


def test_bits_are_those_of_the_parts_that_ask():
    """Counted by hand: 8 tokens, 2 of them steered, with two behaviours and two choices."""
    trace = HybridTrace(
        "p",
        tokens=[1] * 8,
        steered=[True, False, False, False, True, False, False, False],
        behaviour=[0, -1, -1, -1, 1, -1, -1, -1],
        strength=[1.0] * 8,
        choice=[0, 0, 0, 0, 3, 0, 0, 0],
        base_token=[1] * 8,
        thinking_token=[1] * 6 + [2] * 2,
        surprisal=[3.0] + [0.5] * 7,
    )

    def bits(*asks):
        return oracle_bits(ArmResult("arm", [trace], [""], 1.0, asks))

    where = 0.25 * 2 + 0.75 * np.log2(4 / 3)
    assert bits()["bits_per_token"] == 0
    assert bits("where")["parts"]["where"] == pytest.approx(where)
    both = bits("where", "which")
    assert both["bits_per_token"] == pytest.approx(where + 0.25)
    assert both["bits_per_steered_token"] == pytest.approx(4 * (where + 0.25))
    assert bits("emit:choice")["bits_per_token"] == pytest.approx(0.25)
    assert bits("where", "which", "emit:token")["bits_per_token"] == pytest.approx(where + 3.5 / 8)
    assert agreement(ArmResult("arm", [trace], [""], 1.0)) == 0.75
    assert surprisal(ArmResult("arm", [trace], [""], 1.0)) == pytest.approx(6.5 / 8)
    rollout = ArmResult("rollout", [HybridTrace("p", tokens=[1, 2])], [""], 1.0)
    assert (oracle_bits(rollout)["bits_per_token"], agreement(rollout), surprisal(rollout)) == (0, None, None)

"""Intervals where there is little or nothing to estimate."""

import itertools
import math
import warnings

import numpy as np
import pytest
from scipy.stats import permutation_test, ttest_1samp

from probe.statistics import (
    Interval,
    bootstrap,
    column_intervals,
    holm,
    mean_interval,
    paired_permutation,
    pass_at,
    score_interval,
    share_difference,
    share_interval,
    sign_flips,
)


def test_without_items_there_is_no_estimate_and_with_one_no_interval():
    nothing = Interval(0, None, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mean_interval(np.zeros(0)) == mean_interval(np.zeros((3, 0))) == nothing
        assert share_interval([]) == share_difference([]) == nothing
        assert column_intervals(np.zeros((0, 2))) == [nothing, nothing]
        assert mean_interval(np.array([4.0])) == Interval(1, 4.0, None, None)
        assert mean_interval(np.array([4.0]), np.array([0.0])) == Interval(1, None, None, None)
        assert mean_interval(np.array([4.0, 2.0]), np.zeros(2)) == Interval(2, None, None, None)


def test_the_bootstrap_of_a_mean_agrees_with_the_normal_interval():
    values = np.random.default_rng(0).normal(size=200)
    found = mean_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.ci is not None
    np.testing.assert_allclose(found.ci, (values.mean() - half, values.mean() + half), atol=0.02)


def test_training_seeds_are_resampled_too():
    rows = np.stack([np.zeros(200), np.ones(200)])
    assert mean_interval(rows[:1]).ci == (0.0, 0.0)
    assert mean_interval(rows).ci == (0.0, 1.0)


def test_resamples_without_a_value_are_left_out():
    low, high = bootstrap(lambda items: np.where((items == 0).any(1), 1.0, np.nan), 3)
    assert (low, high) == (1.0, 1.0)
    low, high = bootstrap(lambda items: np.full((2, len(items)), np.nan), 3)
    assert np.isnan([*low, *high]).all()


def test_intervals_over_samples_cover_the_mean_over_problems():
    """Problems that are nearly always or nearly never solved: answers to one problem are far from independent."""
    rng = np.random.default_rng(0)
    covered = pooled = 0
    for _ in range(600):
        chances = rng.beta(0.3, 0.2, size=60)
        grades = (rng.random((60, 4)) < chances[:, None]).tolist()
        found, naive = score_interval(grades), share_interval([one for each in grades for one in each])
        covered += found.low <= 0.6 <= found.high
        pooled += naive.low <= 0.6 <= naive.high
    assert 0.93 <= covered / 600 <= 0.98, covered
    assert pooled / 600 < 0.85, "samples taken for problems"


def test_one_answer_to_each_problem_is_wilsons_interval():
    for grades in ([True] * 9, [False] * 4, [True, None, False, False], [None]):
        known = [grade for grade in grades if grade is not None]
        one, several = share_interval(known), score_interval(grades)
        assert one.n == several.n and one.value == several.value
        np.testing.assert_allclose(several.ci or (0, 0), one.ci or (0, 0), atol=1e-9)
    assert score_interval([[True, True], [True, None]]).value == 1.0


def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer():
    grades = [[True, False, False, None, False], [True, True, False, False, True], [False] * 5, [None] * 5]
    for k in (1, 2, 4, 5):
        shares = []
        for each in grades:
            known = [one for one in each if one is not None]
            some = list(itertools.combinations(known, k))
            shares += [np.mean([any(one) for one in some])] if some else []
        found = pass_at(grades, k)
        assert found.n == len(shares)
        np.testing.assert_allclose(found.value, np.mean(shares))


def test_shares_of_samples_are_exchanged_by_problem():
    a, b = [[True, True], [True, False], [True, True], [False, False]], [[False, False]] * 4
    # All 16 exchanges: only those that keep every difference on one side are as extreme.
    assert paired_permutation(a, b) == 0.25
    assert paired_permutation(a, a) == 1.0 and paired_permutation([None, True], [True, None]) is None
    plain = [True, False, True, True, True, True, True]
    assert paired_permutation(plain, [False] * 7) == paired_permutation([[x] for x in plain], [[False]] * 7) == 2 / 64
    many = [[True, False]] * 30 + [[False, False]] * 10
    assert paired_permutation(many, [[False, False]] * 40, seed=1) < 0.001


def test_flips_of_signs_are_exact():
    """Against every assignment by hand, and the test of means for values that are normal."""
    rows = np.array([[0.3, 1.0], [0.1, -1.0], [-0.2, 1.0], [0.5, -1.0]])
    assert sign_flips(rows).tolist() == [3 / 16, 11 / 16]  # sums of at least 0.7, and of at least 0
    assert sign_flips(rows, two_sided=True).tolist() == [6 / 16, 1.0]
    below = -np.arange(1.0, 4.0)[:, None]
    assert sign_flips(below).tolist() == sign_flips(below, together=True).tolist() == [1.0]
    many = np.random.default_rng(1).normal([0.0, 0.3, 0.8], size=(40, 3))
    for two_sided, alternative in ((False, "greater"), (True, "two-sided")):
        expected = ttest_1samp(many, 0, alternative=alternative)
        assert sign_flips(many, two_sided=two_sided) == pytest.approx(expected.pvalue, abs=0.01)


def test_one_column_by_its_spread_is_tested_as_scipy_does():
    values = np.random.default_rng(0).normal(0.4, 1, (8, 1))

    def statistic(x, axis):
        return np.abs(x.mean(axis)) / np.sqrt((x**2).mean(axis) - x.mean(axis) ** 2)

    peer = permutation_test(
        (values[:, 0],), statistic, permutation_type="samples", alternative="greater", n_resamples=np.inf
    )
    assert sign_flips(values, two_sided=True, together=True) == pytest.approx(peer.pvalue, abs=1e-6)


def test_noise_in_many_columns_is_seldom_taken_for_an_effect():
    """All columns together: at most about one draw in twenty has a column below 0.05."""
    rng = np.random.default_rng(1)
    many = {"two_sided": True, "together": True}
    hits = sum(bool((sign_flips(rng.normal(0, 1, (8, 16)), **many) < 0.05).any()) for _ in range(100))
    assert hits <= 12
    big = rng.normal(0, 0.1, (8, 16))
    big[:, 9] += 1.0
    assert sign_flips(big, **many)[9] < 0.05


@pytest.mark.parametrize("items", [5, 40])
@pytest.mark.parametrize("together", [False, True])
def test_columns_without_a_value_have_no_p_and_leave_the_others_alone(items, together):
    values = np.random.default_rng(2).normal(0.5, 1, (items, 4))
    broken = values.copy()
    broken[1, 0], broken[2, 3] = math.nan, math.inf
    found = sign_flips(broken, together=together)
    assert np.isnan(found[[0, 3]]).all() and (found[1:3] > 0).all()
    assert found[1:3].tolist() == sign_flips(values[:, 1:3], together=together).tolist()
    assert np.isnan(sign_flips(np.full((items, 2), math.nan), together=together)).all()
    assert sign_flips(np.zeros((items, 2)), together=together).tolist() == [1.0, 1.0]
    assert sign_flips(np.zeros((0, 2)), together=together).tolist() == [1.0, 1.0]


def test_a_test_without_a_p_value_is_not_corrected_for():
    found = holm({"a": 0.02, "none": math.nan, "b": 0.9})
    assert list(found) == ["a", "none", "b"] and found["a"] == 0.04 and found["b"] == 0.9
    assert math.isnan(found["none"]) and math.isnan(holm({"none": math.nan})["none"])

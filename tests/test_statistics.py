"""Intervals where there is little or nothing to estimate."""

import warnings

import numpy as np

from probe.statistics import Interval, bootstrap, column_intervals, mean_interval, share_difference, share_interval


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

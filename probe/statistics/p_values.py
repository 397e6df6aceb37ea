"""Tests: p values, their adjustment for several tests, and how they are written."""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy import stats

from probe.statistics.intervals import CELLS, RESAMPLES, Grades, scores


def paired_permutation(a: Grades, b: Grades, *, seed: int = 0) -> float | None:
    """Compute the two-sided p value of the difference between two shares of right answers to the same problems.

    With one answer to each problem, the paired permutation test is McNemar's exact test: only problems that one side
    alone answers rightly count, and under the null each of them is a fair coin. With several answers, the shares of a
    problem are exchanged between both sides.

    Args:
        a, b: grades of the same problems in the same order; a problem without a graded answer on either side is left
            out.
        seed: seeds the permutations, where they are too many to try all.

    Returns:
        The p value; 1 if no problem differs, None if there is no problem to compare.
    """
    pairs = [pair for pair in zip(scores(a), scores(b), strict=True) if None not in pair]
    if not pairs:
        return None
    table = np.asarray(pairs, dtype=float)
    first, second = table.T
    if not (first != second).any():
        return 1.0
    if np.isin(table, (0.0, 1.0)).all():
        gained = int((first > second).sum())
        return float(stats.binomtest(gained, int((first != second).sum())).pvalue)
    found = stats.permutation_test(
        (first, second),
        lambda one, other, axis: np.mean(one - other, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES - 1,
        batch=max(1, CELLS // len(pairs)),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def sign_flips(
    values: Float[np.ndarray, "items columns"],
    *,
    two_sided: bool = False,
    together: bool = False,
    flips: int = 2**16,
    seed: int = 0,
) -> Float[np.ndarray, " columns"]:
    """Test whether the mean of each column is above 0, by flipping the signs of items (Fisher, 1935).

    The signs of all columns of an item are flipped together.

    Args:
        values: one row for each item, such as differences.
        two_sided: test whether the mean is different from 0.
        together: correct for the number of columns: divide each mean by the spread of its column, and compare it with
            the largest of all columns (Westfall and Young, 1993).
        flips: the most flips. If there are no more than these, all are tried, and random ones otherwise.
        seed: seeds random flips.

    Returns:
        The p values. None is 0, because the signs as they are count as a flip. A column with a value that is not finite
        has NaN, and is not one of those that are corrected for.

    >>> sign_flips(np.array([[1.0, 1.0], [2.0, -1.0]])).tolist()
    [0.25, 0.75]
    """
    finite = np.isfinite(values).all(0)
    known, n = values[:, finite], len(values)
    every = n < flips.bit_length()
    count = 2**n if every else flips
    squares = (known**2).sum(0)
    slack = 1e-12 * (1.0 if together else np.abs(known).sum(0))  # equal sums differ by their rounding

    def statistic(signs: Float[np.ndarray, "flips items"]) -> Float[np.ndarray, "flips known"]:
        sums = signs @ known
        if together:
            sums = sums / (np.sqrt(np.maximum(n * squares - sums**2, 0.0)) + max(n, 1) * 1e-9)
        return np.abs(sums) if two_sided else sums

    rng, above = np.random.default_rng(seed), np.zeros(known.shape[1], dtype=int)
    least = statistic(np.ones((1, n)))[0] - slack
    several = max(1, 2**22 // max(n, *known.shape, 1))
    for first in range(0, count, several):
        numbers = np.arange(first, min(count, first + several))[:, None]
        negative = numbers >> np.arange(n) & 1 if every else rng.integers(0, 2, (len(numbers), n))
        negative[numbers[:, 0] == 0] = 0  # the signs as they are
        found = statistic(1.0 - 2.0 * negative)
        above += ((found.max(1, keepdims=True, initial=-np.inf) if together else found) >= least).sum(0)
    p = np.full(values.shape[1], np.nan)
    p[finite] = above / count
    return p


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p values for multiple comparisons (Holm, 1979).

    Args:
        p_values: the p value of each test by its name; NaN for a test without one, which stays NaN and does not count.

    Returns:
        The adjusted p values in the order given.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan})
    {'a': 0.03, 'b': 0.06, 'c': 0.06, 'd': nan}
    """
    known = sorted((name for name in p_values if not math.isnan(p_values[name])), key=lambda name: p_values[name])
    adjusted, highest = dict.fromkeys(p_values, math.nan), 0.0
    for rank, name in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p_values[name]))
        adjusted[name] = highest
    return adjusted


def write_p(p: float | None) -> str:
    """Write a p value as ``p = 0.031``, or ``p < 0.001`` below that; "" where there is none.

    A p value is never 0: that of a permutation test is (k + 1) / (n + 1), where k of n permutations are as extreme.

    >>> write_p(0.0312), write_p(0.0036), write_p(0.00001), write_p(None), write_p(math.nan)
    ('p = 0.031', 'p = 0.0036', 'p < 0.001', '', '')
    """
    if p is None or math.isnan(p):
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.01 else f"p = {p:.3f}"

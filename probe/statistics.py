"""Confidence intervals and tests: one confidence level, one bootstrap and one type of interval for the whole package.

All functions take one value for each item (a problem, a text, a trace), so that comparisons stay paired by item. The
statistics of the gap between two models are in ``probe.hybrid``.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

LEVEL = 0.95
"""Confidence level of every interval."""
RESAMPLES = 10_000
"""Number of resamples of every bootstrap."""
_CELLS = 20_000_000
"""Number of values that are resampled at once: 160 MB of float64."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % confidence interval.

    Attributes:
        n: the number of items.
        value: the estimate; None without items.
        low, high: the ends of the interval; None where there is no interval, for example with fewer than two items.
    """

    n: int
    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, n: int, value: float, low: float, high: float) -> "Interval":
        """Make an interval from numbers that may be NaN or infinite, which become None."""
        known = math.isfinite(low) and math.isfinite(high)
        return cls(
            n,
            float(value) if math.isfinite(value) else None,
            float(low) if known else None,
            float(high) if known else None,
        )

    @property
    def ci(self) -> tuple[float, float] | None:
        """Both ends of the interval; None if there is no interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def to_dict(self) -> dict[str, Any]:
        """Return ``value`` and ``ci`` as a dictionary for JSON."""
        return {"value": self.value, "ci": None if self.ci is None else list(self.ci)}

    def write(self, number: Callable[[float], str] = "{:.3g}".format) -> str:
        """Return the estimate and its interval as text, each number formatted by ``number``; "" without an estimate.

        >>> Interval(9, 0.5, 0.25, 0.75).write("{:.0%}".format)
        '50% [25%, 75%]'
        """
        if self.value is None:
            return ""
        ends = "" if self.ci is None else f" [{number(self.ci[0])}, {number(self.ci[1])}]"
        return f"{number(self.value)}{ends}"

    def __str__(self) -> str:
        return self.write() or "none"


_NOTHING = Interval(0, None, None, None)

Grades = Sequence[bool | Sequence[bool | None] | None]
"""Whether the answer to each problem is right; None where it was not graded. A problem with several sampled answers has
a sequence of grades."""


def scores(grades: Grades) -> list[float | None]:
    """The share of right answers to each problem, among those that were graded; None where there are none.

    The items of every interval and test are problems, and all samples of a problem stay together, because answers to
    one problem are not independent of each other.

    >>> scores([True, None, [True, False, None, False]])
    [1.0, None, 0.3333333333333333]
    """
    found = []
    for grade in grades:
        known = [each for each in (grade if isinstance(grade, Sequence) else [grade]) if each is not None]
        found.append(sum(known) / len(known) if known else None)
    return found


Statistic = Callable[[Int[np.ndarray, "resamples items"]], Float[np.ndarray, "*values resamples"]]
"""Takes the indices of the items of each resample and returns one or more values for each resample."""


def bootstrap(
    statistic: Statistic, n: int, *, width: int = 1, seed: int = 0
) -> tuple[Float[np.ndarray, "*values"], Float[np.ndarray, "*values"]]:
    """Compute a percentile bootstrap interval over items with ``scipy.stats.bootstrap``.

    Args:
        statistic: computed for each resample; several statistics of the same resample stay paired.
        n: the number of items.
        width: the number of values that the statistic reads for each item, which bounds the memory of a batch.
        seed: seeds the resampling.

    Returns:
        The lower and the upper ends. Resamples in which the statistic is NaN are left out; both ends are NaN with fewer
        than two items or if no resample has a value.
    """
    if n < 2:
        with np.errstate(divide="ignore", invalid="ignore"):
            shape = np.shape(statistic(np.zeros((1, n), dtype=int)))[:-1] if n else ()
        return np.full(shape, np.nan), np.full(shape, np.nan)

    def of(items: Int[np.ndarray, "resamples items"], axis: int) -> Float[np.ndarray, "*values resamples"]:  # noqa: ARG001
        with np.errstate(divide="ignore", invalid="ignore"):
            values = statistic(items)
        return np.where(np.isfinite(values), values, np.nan)  # scipy computes a spread, which infinities do not have

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # resamples without a value are handled below
        values = stats.bootstrap(
            (np.arange(n),),
            of,
            n_resamples=RESAMPLES,
            batch=min(RESAMPLES, max(1, _CELLS // (n * width))),
            vectorized=True,
            confidence_level=LEVEL,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    finite = np.isfinite(values)
    tail = 100 * (1 - LEVEL) / 2
    # Where no resample has a value, zeros avoid a warning; they are not used.
    known = np.asarray(finite.any(axis=-1))
    low, high = np.nanpercentile(
        np.where(finite, values, np.where(known[..., np.newaxis], np.nan, 0.0)), [tail, 100 - tail], axis=-1
    )
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def mean_interval(
    values: Float[np.ndarray, "*seeds items"], whole: Float[np.ndarray, "*seeds items"] | None = None, *, seed: int = 0
) -> Interval:
    """Estimate a mean over items and training seeds, or the ratio of two such means.

    Args:
        values: one value for each item; with several training seeds, one row for each seed.
        whole: the denominators, of the same shape; None estimates the mean itself.
        seed: seeds the resampling. Rows are resampled, and items are resampled together for all rows.

    Returns:
        The interval; its value is None without items, and where the mean of the denominators is 0.
    """
    top = np.atleast_2d(np.asarray(values, dtype=float))
    bottom = np.ones_like(top) if whole is None else np.atleast_2d(np.asarray(whole, dtype=float))
    rows, n = top.shape
    rng = np.random.default_rng([seed, 1])

    def ratio(items: Int[np.ndarray, "resamples items"]) -> Float[np.ndarray, " resamples"]:
        chosen = rng.integers(0, rows, (len(items), rows))
        means = [np.take_along_axis(part[:, items].mean(-1).T, chosen, axis=1).mean(-1) for part in (top, bottom)]
        return means[0] / means[1]

    if not n:
        return _NOTHING
    low, high = bootstrap(ratio, n, width=2 * rows, seed=seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(np.divide(top.mean(), bottom.mean()))
    return Interval.of(n, value, float(low), float(high))


def column_intervals(rows: Float[np.ndarray, "items columns"], *, seed: int = 0) -> list[Interval]:
    """Estimate the mean of each column, from the same resamples of items for all columns.

    Args:
        rows: one row for each item.
        seed: seeds the resampling.
    """
    n, columns = rows.shape
    if not n:
        return [_NOTHING] * columns
    low, high = bootstrap(lambda items: rows[items].mean(1).T, n, width=columns, seed=seed)
    means = rows.mean(0)
    return [Interval.of(n, means[i], low[i], high[i]) for i in range(columns)]


def interval_ends(intervals: Sequence[Interval]) -> tuple[list[float], list[float]]:
    """The lower and the upper ends of intervals; NaN where there is none.

    >>> interval_ends([Interval(2, 0.5, 0.0, 1.0), Interval(0, None, None, None)])
    ([0.0, nan], [1.0, nan])
    """
    low, high = (
        [math.nan if end is None else end for end in ends]
        for ends in zip(*((i.low, i.high) for i in intervals), strict=True)
    )
    return low, high


def share_interval(hits: Sequence[bool]) -> Interval:
    """Estimate the share of true items, with Wilson's interval.

    >>> str(share_interval([True, True, False, True]))
    '0.75 [0.301, 0.954]'
    """
    if not len(hits):
        return _NOTHING
    return Interval(len(hits), *_wilson(hits))


def _wilson(hits: Sequence[bool]) -> tuple[float, float, float]:
    interval = stats.binomtest(int(np.sum(hits)), len(hits)).proportion_ci(LEVEL, method="wilson")
    return float(np.mean(hits)), float(interval.low), float(interval.high)


def score_interval(grades: Grades) -> Interval:
    """Estimate the mean share of right answers over problems, from one or several answers to each.

    With one answer to each problem, it is Wilson's interval. With several, it is Wilson's interval with the effective
    number of answers, the number of independent answers that would have the observed variance of the mean over problems
    (Korn and Graubard, Survey Methodology 24, 193, 1998).

    Returns:
        The interval; its ``n`` is the number of problems with a graded answer.

    >>> str(score_interval([True, True, False, False])), str(score_interval([[True, True], [False, False]]))
    ('0.5 [0.15, 0.85]', '0.5 [0.0945, 0.905]')
    """
    shares = np.asarray([score for score in scores(grades) if score is not None])
    n = len(shares)
    if not n:
        return _NOTHING
    p, variance = float(shares.mean()), float(shares.var())
    answers = n * max((len(grade) if isinstance(grade, Sequence) else 1) for grade in grades)
    effective = min(max(n * p * (1 - p) / variance, n), answers) if variance > 0 else n
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    middle = (p + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z / (1 + z**2 / effective) * math.sqrt(p * (1 - p) / effective + z**2 / (4 * effective**2))
    return Interval(n, p, max(0.0, middle - half), min(1.0, middle + half))


def pass_at(grades: Grades, k: int, *, seed: int = 0) -> Interval:
    """Estimate the probability that at least one of ``k`` answers to a problem is right, without bias.

    Each problem with ``n`` graded answers of which ``c`` are right counts as 1 − C(n − c, k) / C(n, k) (Chen et al.,
    arXiv 2107.03374). A problem with fewer than ``k`` graded answers is left out.

    Args:
        k: the number of answers.
        seed: seeds the resampling of problems.

    >>> pass_at([[True, False, False, False], [False] * 4], 2).value
    0.25
    """
    values = []
    for grade in grades:
        known = [each for each in (grade if isinstance(grade, Sequence) else [grade]) if each is not None]
        if len(known) >= k:
            values.append(1 - math.comb(len(known) - sum(known), k) / math.comb(len(known), k))
    return mean_interval(np.asarray(values), seed=seed)


def share_difference(pairs: Sequence[tuple[bool, bool]]) -> Interval:
    """Estimate the difference of two shares of the same items.

    The interval is Newcombe's method 10 for paired proportions (Statistics in Medicine 17, 2635, 1998), which combines
    Wilson's limits of the two shares with their correlation.

    Args:
        pairs: for each item, whether it is true and whether it is true under the control.

    Returns:
        The share under the first condition minus the share under the control.
    """
    n = len(pairs)
    if not n:
        return _NOTHING
    (p, p_low, p_high), (q, q_low, q_high) = _wilson([a for a, _ in pairs]), _wilson([b for _, b in pairs])
    both = sum(a and b for a, b in pairs)
    only_first, only_second = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    phi = _phi(both, only_first, only_second, n - both - only_first - only_second)
    difference = (only_first - only_second) / n
    below, above = _combined(p - p_low, q_high - q, phi), _combined(p_high - p, q - q_low, phi)
    return Interval(n, difference, difference - below, difference + above)


def independent_difference(first: Sequence[bool], second: Sequence[bool]) -> Interval:
    """Estimate the difference of two shares of different items.

    The interval is Newcombe's method 10 for independent proportions (Statistics in Medicine 17, 873, 1998), which
    combines Wilson's limits of the two shares.

    Args:
        first, second: whether each item is true.

    Returns:
        The first share minus the second; its ``n`` is the number of all items.
    """
    if not len(first) or not len(second):
        return _NOTHING
    (p, p_low, p_high), (q, q_low, q_high) = _wilson(first), _wilson(second)
    below, above = _combined(p - p_low, q_high - q, 0), _combined(p_high - p, q - q_low, 0)
    return Interval(len(first) + len(second), p - q, p - q - below, p - q + above)


def _phi(both: int, first: int, second: int, neither: int) -> float:
    """Phi of a 2 x 2 table, with Newcombe's continuity correction if it is positive; 0 if it is undefined."""
    n = both + first + second + neither
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if not margins:
        return 0.0
    product = both * neither - first * second
    return (max(product - n / 2, 0.0) if product > 0 else product) / math.sqrt(margins)


def _combined(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))


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
        batch=max(1, _CELLS // len(pairs)),
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


def entropy_bits(counts: Sequence[float]) -> float:
    """Compute the entropy, in bits, of the distribution that is proportional to some counts."""
    p = np.asarray(counts, dtype=float)
    p = p[p > 0] / p.sum() if p.sum() else p[:0]
    return float(-(p * np.log2(p)).sum()) or 0.0  # no minus before a zero

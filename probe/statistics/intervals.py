"""Confidence intervals: one confidence level, one bootstrap and one type of interval for the whole package."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

LEVEL = 0.95
"""Confidence level of every interval."""
RESAMPLES = 10_000
"""Number of resamples of every bootstrap."""
CELLS = 20_000_000
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
            batch=min(RESAMPLES, max(1, CELLS // (n * width))),
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

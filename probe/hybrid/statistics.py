"""Intervals: Wilson for one accuracy, paired bootstrap over problems for gap recovered."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

LEVEL = 0.95
RESAMPLES = 10_000


def accuracy_interval(correct: Sequence[bool]) -> tuple[float, float]:
    """Wilson interval at 95 %."""
    interval = binomtest(int(np.sum(correct)), len(correct)).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def gap_recovered(
    arm: Sequence[bool | None], base: Sequence[bool | None], thinking: Sequence[bool | None], *, seed: int = 0
) -> dict:
    """(arm − base) / (thinking − base) on the same problems, with a paired bootstrap interval; never clamped.

    Args:
        arm, base, thinking: correct or not, one value a problem, in the same order; a problem that could not be
            graded (None) for any of the three is left out.
        seed: of the resampling.

    Returns:
        ``{"value", "ci"}``. Both are None where the gap itself is within noise: its 95 % interval reaches zero.

    Raises:
        ValueError: if the three do not cover the same number of problems.
    """
    if not len(arm) == len(base) == len(thinking) > 0:
        raise ValueError(f"arms over different problems: {len(arm)}, {len(base)}, {len(thinking)}")
    table = np.asarray([row for row in zip(arm, base, thinking, strict=True) if None not in row], dtype=float).T
    if not table.size:
        return {"value": None, "ci": None}
    draws = np.random.default_rng(seed).integers(0, table.shape[1], (RESAMPLES, table.shape[1]))
    arm_mean, base_mean, thinking_mean = table[:, draws].mean(-1)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(thinking_mean - base_mean, [tail, 100 - tail])
    if low <= 0 <= high:
        return {"value": None, "ci": None}
    point = table.mean(1)
    ratios = (arm_mean - base_mean) / np.where(thinking_mean == base_mean, np.nan, thinking_mean - base_mean)
    return {
        "value": float((point[0] - point[1]) / (point[2] - point[1])),
        "ci": [float(bound) for bound in np.nanpercentile(ratios, [tail, 100 - tail])],
    }


def entropy_bits(counts: Sequence[float]) -> float:
    """Entropy of a distribution given by counts, in bits."""
    p = np.asarray(counts, dtype=float)
    p = p[p > 0] / p.sum() if p.sum() else p[:0]
    return float(-(p * np.log2(p)).sum())

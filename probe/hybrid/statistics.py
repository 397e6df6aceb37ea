"""Intervals and tests over problems, always paired: gap recovered, differences between arms, power."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import binom, binomtest

LEVEL = 0.95
RESAMPLES = 10_000
_TAILS = (100 * (1 - LEVEL) / 2, 100 - 100 * (1 - LEVEL) / 2)


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
    return seeds_recovered([arm], base, thinking, seed=seed)


def seeds_recovered(
    arms: Sequence[Sequence[bool | None]],
    base: Sequence[bool | None],
    thinking: Sequence[bool | None],
    *,
    seed: int = 0,
) -> dict:
    """Gap recovered with training seeds as a second level: problems are drawn, paired, and seeds are drawn.

    Args:
        arms: the same arm once for each seed.
        base, thinking, seed: as for :func:`gap_recovered`.

    Returns:
        ``{"value", "ci"}``: the mean over seeds, and an interval that knows of both sources of chance. None without a
        gap.

    Raises:
        ValueError: if they do not cover the same number of problems.
    """
    sizes = [len(base), len(thinking), *map(len, arms)]
    if len(set(sizes)) > 1 or not sizes[0] or not arms:
        raise ValueError(f"arms over different problems: {', '.join(map(str, sizes))}")
    table = np.asarray([row for row in zip(base, thinking, *arms, strict=True) if None not in row], dtype=float).T
    if not table.size:
        return {"value": None, "ci": None}
    rng = np.random.default_rng(seed)
    # The same problems for every row of a resample: the comparison stays paired.
    problems = rng.integers(0, table.shape[1], (RESAMPLES, table.shape[1]))
    means = np.stack([row[problems].mean(-1) for row in table])
    gap = means[1] - means[0]
    low, high = np.percentile(gap, _TAILS)
    if low <= 0 <= high:
        return {"value": None, "ci": None}
    chosen = rng.integers(0, len(arms), (RESAMPLES, len(arms)))
    over_seeds = np.take_along_axis(means[2:].T, chosen, axis=1).mean(-1)
    point = table.mean(1)
    ratios = (over_seeds - means[0]) / np.where(gap == 0, np.nan, gap)
    return {
        "value": float((point[2:].mean() - point[0]) / (point[1] - point[0])),
        "ci": [float(bound) for bound in np.nanpercentile(ratios, _TAILS)],
    }


def paired_permutation(a: Sequence[bool | None], b: Sequence[bool | None]) -> float:
    """Two-sided p of the difference in accuracy, by flipping signs within problems.

    With right-or-wrong answers the test is exact: only problems that one of the two got right count, and under the null
    each is a fair coin (McNemar's exact test).

    Args:
        a, b: correct or not, of the same problems in the same order; one that could not be graded (None) is left out.
    """
    pairs = [(one, other) for one, other in zip(a, b, strict=True) if one is not None and other is not None]
    only_a, only_b = sum(one and not other for one, other in pairs), sum(other and not one for one, other in pairs)
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted for asking several questions at once (Holm, 1979).

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    adjusted, highest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def compare_arms(correct: Mapping[str, Sequence[bool | None]], reference: str, *, seed: int = 0) -> dict[str, dict]:
    """Every arm against one of them: difference in accuracy with a paired bootstrap interval, p, and p after Holm."""
    found = {}
    for name, values in correct.items():
        if name == reference:
            continue
        pairs = [pair for pair in zip(values, correct[reference], strict=True) if None not in pair]
        if not pairs:
            continue
        difference = np.asarray(pairs, dtype=float) @ [1, -1]
        draws = np.random.default_rng(seed).integers(0, len(difference), (RESAMPLES, len(difference)))
        found[name] = {
            "difference": float(difference.mean()),
            "ci": [float(bound) for bound in np.percentile(difference[draws].mean(-1), _TAILS)],
            "p": paired_permutation(values, correct[reference]),
        }
    adjusted = holm({name: entry["p"] for name, entry in found.items()})
    return {name: {**entry, "p_holm": adjusted[name]} for name, entry in found.items()}


def detectable_gap(base: Sequence[bool | None], thinking: Sequence[bool | None], *, power: float = 0.8) -> float | None:
    """The smallest share of the gap that an arm must recover to be told from the base model on these problems.

    A paired comparison at the 5 % level with the given power. An arm that recovers a share is taken to answer that
    share of the problems as the thinking model does and the others as the base model does: it gains some that only the
    thinking model solves, and loses some that only the base model solves.

    Returns:
        A share of the gap, in steps of a hundredth; None where the thinking model does not do better, or even the whole
        gap would be missed.
    """
    pairs = [(b, t) for b, t in zip(base, thinking, strict=True) if b is not None and t is not None]
    gains, losses = sum(t and not b for b, t in pairs), sum(b and not t for b, t in pairs)
    if gains <= losses:
        return None
    gained, lost = np.arange(gains + 1)[:, None], np.arange(losses + 1)[None]
    # The exact test's two-sided p of every outcome, in which more was gained than lost.
    told = (gained > lost) & (2 * binom.sf(gained - 1, gained + lost, 0.5) < 1 - LEVEL)
    for share in np.arange(1, 101) / 100:
        chances = binom.pmf(gained, gains, share) * binom.pmf(lost, losses, share)
        if chances[told].sum() >= power:
            return float(share)
    return None


def entropy_bits(counts: Sequence[float]) -> float:
    """Entropy of a distribution given by counts, in bits."""
    p = np.asarray(counts, dtype=float)
    p = p[p > 0] / p.sum() if p.sum() else p[:0]
    return float(-(p * np.log2(p)).sum()) or 0.0  # no minus before a zero

"""How much of the gap between base and thinking model an arm recovers, and what arms differ in; paired by problem."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binom

from probe.statistics import LEVEL, bootstrap, holm, mean_interval, paired_permutation


def gap_recovered(
    arm: Sequence[bool | None], base: Sequence[bool | None], thinking: Sequence[bool | None], *, seed: int = 0
) -> dict[str, Any]:
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
) -> dict[str, Any]:
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
    rng = np.random.default_rng([seed, 1])

    def gaps(items: np.ndarray) -> np.ndarray:
        # The same problems for every row of a resample: the comparison stays paired.
        means = table[:, items].mean(-1)
        chosen = rng.integers(0, len(arms), (len(items), len(arms)))
        over_seeds = np.take_along_axis(means[2:].T, chosen, axis=1).mean(-1)
        gap = means[1] - means[0]
        return np.stack([gap, (over_seeds - means[0]) / np.where(gap == 0, np.nan, gap)])

    low, high = bootstrap(gaps, table.shape[1], width=len(table), seed=seed)
    if not (low[0] > 0 or high[0] < 0):  # NaN where there is no interval
        return {"value": None, "ci": None}
    point = table.mean(1)
    return {
        "value": float((point[2:].mean() - point[0]) / (point[1] - point[0])),
        "ci": [float(low[1]), float(high[1])],
    }


def compare_arms(correct: Mapping[str, Sequence[bool | None]], reference: str, *, seed: int = 0) -> dict[str, dict]:
    """Every arm against one of them: difference in accuracy with a paired bootstrap interval, p, and p after Holm."""
    found = {}
    for name, values in correct.items():
        if name == reference:
            continue
        pairs = [pair for pair in zip(values, correct[reference], strict=True) if None not in pair]
        if not pairs:
            continue
        difference = mean_interval(np.asarray(pairs, dtype=float) @ [1, -1], seed=seed)
        found[name] = {
            "difference": difference.value,
            "ci": difference.to_dict()["ci"],
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

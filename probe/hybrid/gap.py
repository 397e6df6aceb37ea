"""The gap between base and thinking model that an arm recovers, and differences between arms, paired by problem."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binom

from probe.statistics import LEVEL, Grades, bootstrap, holm, mean_interval, paired_permutation, scores


def gap_recovered(arm: Grades, base: Grades, thinking: Grades, *, seed: int = 0) -> dict[str, Any]:
    """Compute (arm − base) / (thinking − base) on the same problems, with a paired bootstrap interval; never clamped.

    Args:
        arm, base, thinking: whether the answers to the same problems are right, in the same order. A problem without a
            graded answer of any of the three is left out. Samples of a problem count together.
        seed: seeds the resampling.

    Returns:
        ``value`` and ``ci``. Both are None if the 95 % interval of the gap itself includes zero. Where every resample
        has the same gap, there is no such interval, and the exact paired test decides.

    Raises:
        ValueError: if the three do not cover the same number of problems.
    """
    return seeds_recovered([arm], base, thinking, seed=seed)


def seeds_recovered(
    arms: Sequence[Grades],
    base: Grades,
    thinking: Grades,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute the gap recovered over several training seeds; the bootstrap resamples problems, paired, and seeds.

    Args:
        arms: the answers of the same arm, once for each training seed.
        base, thinking, seed: see :func:`gap_recovered`.

    Returns:
        ``value``, the mean over seeds, and ``ci``, which covers both sources of variation. Both are None if the 95 %
        interval of the gap itself includes zero.

    Raises:
        ValueError: if they do not cover the same number of problems.
    """
    sizes = [len(base), len(thinking), *map(len, arms)]
    if len(set(sizes)) > 1 or not sizes[0] or not arms:
        raise ValueError(f"arms over different problems: {', '.join(map(str, sizes))}")
    shares = [scores(each) for each in (base, thinking, *arms)]
    table = np.asarray([row for row in zip(*shares, strict=True) if None not in row], dtype=float).T
    if not table.size:
        return {"value": None, "ci": None}
    rng = np.random.default_rng([seed, 1])

    def gaps(items: np.ndarray) -> np.ndarray:
        # Every row of a resample has the same problems, so the comparison stays paired.
        means = table[:, items].mean(-1)
        chosen = rng.integers(0, len(arms), (len(items), len(arms)))
        over_seeds = np.take_along_axis(means[2:].T, chosen, axis=1).mean(-1)
        gap = means[1] - means[0]
        return np.stack([gap, (over_seeds - means[0]) / np.where(gap == 0, np.nan, gap)])

    low, high = bootstrap(gaps, table.shape[1], width=len(table), seed=seed)
    if not (low[0] > 0 or high[0] < 0):  # NaN where there is no interval
        return {"value": None, "ci": None}
    if low[0] == high[0]:  # the models differ alike on every problem: two problems would be enough for an interval
        p = paired_permutation(*_kept(base, thinking, arms), seed=seed)
        if p is None or p >= 1 - LEVEL:
            return {"value": None, "ci": None}
    point = table.mean(1)
    return {
        "value": float((point[2:].mean() - point[0]) / (point[1] - point[0])),
        "ci": [float(low[1]), float(high[1])],
    }


def _kept(base: Grades, thinking: Grades, arms: Sequence[Grades]) -> tuple[Grades, Grades]:
    """The grades of both models on the problems that all arms have graded answers to."""
    shares = [scores(each) for each in (base, thinking, *arms)]
    some = [i for i, row in enumerate(zip(*shares, strict=True)) if None not in row]
    return [base[i] for i in some], [thinking[i] for i in some]


def compare_arms(correct: Mapping[str, Grades], reference: str, *, seed: int = 0) -> dict[str, dict]:
    """Compare every arm with a reference arm.

    Args:
        correct: for each arm, whether the answers to the same problems are right, in the same order; a problem without
            a graded answer is left out.
        reference: the name of the reference arm.
        seed: seeds the resampling.

    Returns:
        For each other arm: ``difference`` in accuracy with its paired bootstrap ``ci``, ``p`` of the exact paired test
        and ``p_holm`` after Holm's correction. An arm without a graded problem in common is left out.
    """
    found = {}
    for name, values in correct.items():
        if name == reference:
            continue
        pairs = [pair for pair in zip(scores(values), scores(correct[reference]), strict=True) if None not in pair]
        if not pairs:
            continue
        difference = mean_interval(np.asarray(pairs, dtype=float) @ [1, -1], seed=seed)
        found[name] = {
            "difference": difference.value,
            "ci": difference.to_dict()["ci"],
            "p": paired_permutation(values, correct[reference], seed=seed),
        }
    adjusted = holm({name: entry["p"] for name, entry in found.items()})
    return {name: {**entry, "p_holm": adjusted[name]} for name, entry in found.items()}


def detectable_gap(base: Grades, thinking: Grades, *, power: float = 0.8) -> float | None:
    """Find the smallest share of the gap that an arm must recover to be significantly better than the base model.

    The comparison is paired, at the 5 % level. An arm that recovers a share is assumed to answer that share of the
    problems like the thinking model and the others like the base model. So it gains some problems that only the
    thinking model solves, and loses some that only the base model solves.

    Args:
        base, thinking: whether each answer is right, for the same problems in the same order.
        power: the probability of a significant result.

    Returns:
        A share of the gap in steps of 0.01; None if the thinking model is not better, or even the whole gap could not
        be detected.
    """
    pairs = [(b, t) for b, t in zip(_firsts(base), _firsts(thinking), strict=True) if b is not None and t is not None]
    gains, losses = sum(t and not b for b, t in pairs), sum(b and not t for b, t in pairs)
    if gains <= losses:
        return None
    gained, lost = np.arange(gains + 1)[:, None], np.arange(losses + 1)[None]
    # Outcomes that are significant in the exact two-sided test, with more problems gained than lost.
    significant = (gained > lost) & (2 * binom.sf(gained - 1, gained + lost, 0.5) < 1 - LEVEL)
    for share in np.arange(1, 101) / 100:
        chances = binom.pmf(gained, gains, share) * binom.pmf(lost, losses, share)
        if chances[significant].sum() >= power:
            return float(share)
    return None


def _firsts(grades: Grades) -> list[bool | None]:
    """The first graded answer to each problem."""
    return [
        next((each for each in grade if each is not None), None) if isinstance(grade, Sequence) else grade
        for grade in grades
    ]

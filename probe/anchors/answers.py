"""Compare the answers of two sets of rollouts, with or without a known right answer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from probe.problems import Problem, ProblemSet
from probe.statistics import LEVEL, Interval, independent_difference

_PRIOR = 0.5
"""Pseudo-count of each answer, so that the divergence is finite."""
_DRAWS = 2000
"""Number of permutations, and of bootstrap resamples."""


def answer_clusters(
    problem_set: ProblemSet, problem: Problem, answers: Sequence[str | None]
) -> dict[str | None, str | None]:
    """Put answers that say the same into one cluster: 0.5 and 1/2, by the grader of the problem set.

    Args:
        problem: its known answer, if any, names its cluster.
        answers: the answers that were found; None where there is none, which is a cluster of its own.

    Returns:
        The name of the cluster of each answer: the known answer, or the most common answer in it.
    """
    counts = Counter(answer for answer in answers if answer is not None)
    names = [] if problem.answer is None else [problem.answer]
    found: dict[str | None, str | None] = {None: None}
    for answer, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        same = next((name for name in names if problem_set.same_answer(answer, name, problem)), None)
        if same is None:
            names.append(answer)
        found[answer] = answer if same is None else same
    return found


@dataclass(frozen=True)
class Shift:
    """How far one sentence changes the distribution of answers.

    Attributes:
        divergence: the KL divergence in nats of the answers with the sentence from those without it. Its expectation
            where the sentence changes nothing was subtracted, so it may be negative. The interval is a bootstrap over
            rollouts, from smoothed shares.
        p: the p value of a permutation test that the sentence changes nothing.
    """

    divergence: Interval
    p: float | None

    def __repr__(self) -> str:
        return f"Shift({self.divergence.write()} nats, p {'none' if self.p is None else f'{self.p:.3g}'})"


def answer_shift(kept: Sequence[str | None], other: Sequence[str | None], *, seed: int = 0) -> Shift:
    """Compare the answers with a sentence and those without it.

    A divergence of two samples is positive even where both come from one distribution. How large it is then, is known
    by dividing the pooled answers at random, and is subtracted.

    Args:
        kept: the clusters of the answers of rollouts that keep the sentence.
        other: those of rollouts with another sentence in its place.
        seed: seeds the permutations and the bootstrap.
    """
    if not len(kept) or not len(other):
        return Shift(Interval(0, None, None, None), None)
    names = sorted({*kept, *other}, key=str)
    first, second = (np.array([Counter(each)[name] for name in names]) for each in (kept, other))
    rng = np.random.default_rng(seed)
    observed = float(_divergence(first[None], second[None])[0])
    pooled = first + second
    divided = rng.multivariate_hypergeometric(pooled, len(kept), size=_DRAWS)
    null = _divergence(divided, pooled - divided)
    p = (1 + int((null >= observed - 1e-12).sum())) / (1 + _DRAWS)
    value = observed - float(null.mean())
    again = _divergence(*(rng.multinomial(each.sum(), _shares(each), size=_DRAWS) for each in (first, second)))
    # Resampling adds a bias of its own, so the resamples give the width of the interval, and not its place.
    low, high = np.quantile(again - again.mean(), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + value
    return Shift(Interval.of(len(kept) + len(other), value, float(low), float(high)), p)


def _divergence(
    kept: Int[np.ndarray, "many answers"], other: Int[np.ndarray, "many answers"]
) -> Float[np.ndarray, " many"]:
    p, q = _shares(kept), _shares(other)
    return (p * np.log(p / q)).sum(-1)


def _shares(counts: Int[np.ndarray, "*many answers"]) -> Float[np.ndarray, "*many answers"]:
    """The share of each answer, smoothed: one that all rollouts give is not certain."""
    return (counts + _PRIOR) / (counts + _PRIOR).sum(-1, keepdims=True)


def accuracy_difference(kept: Sequence[bool | None], other: Sequence[bool | None]) -> Interval:
    """The accuracy of some rollouts minus that of others, with Newcombe's interval (method 10, 1998).

    Args:
        kept, other: whether each answer is right; None where it could not be graded.
    """
    return independent_difference(*([each for each in some if each is not None] for some in (kept, other)))


def q_values(p: Mapping[int, float | None]) -> dict[int, float]:
    """The false discovery rate at which each of several tests is a finding (Benjamini and Hochberg, 1995).

    Args:
        p: the p value of each test; None where there was none.
    """
    known = {name: value for name, value in p.items() if value is not None}
    if not known:
        return {}
    return dict(zip(known, stats.false_discovery_control(list(known.values())).tolist(), strict=True))

"""Tables of behaviour counts: rates, means with intervals, and paired comparisons."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from probe.errors import ProbeError
from probe.html import html_table
from probe.statistics import Interval, column_intervals


@dataclass(frozen=True, eq=False)
class BehaviourCounts:
    """Counts of behaviours in traces, made by ``count_behaviours``."""

    scheme: str
    """The scheme that was counted by."""
    names: tuple[str, ...]
    """The behaviour of each column."""
    counts: Int[np.ndarray, "trace behaviour"]
    sentences: Int[np.ndarray, " trace"]
    """The number of sentences of each trace."""
    problem_ids: tuple[str, ...]
    """The problem of each trace."""
    correct: tuple[bool | None, ...]
    """Whether each trace is correct; None if it could not be graded."""

    def __len__(self) -> int:
        """The number of traces."""
        return len(self.problem_ids)

    def rates(self, per: str = "answer") -> Float[np.ndarray, "trace behaviour"]:
        """Compute counts per answer or per sentence.

        Args:
            per: ``answer`` for the counts themselves, ``sentence`` to divide them by the number of sentences of the
                trace (NaN for a trace without sentences).

        Raises:
            ProbeError: if ``per`` is neither.
        """
        if per not in ("answer", "sentence"):
            raise ProbeError(f"there are no rates per '{per}'; use answer or sentence")
        if per == "answer":
            return self.counts.astype(float)
        sentences = np.where(self.sentences > 0, self.sentences, np.nan)
        return self.counts / sentences[:, None]

    def mean(self, per: str = "answer", *, seed: int = 0) -> dict[str, Interval]:
        """Compute the mean rate of each behaviour over traces, with a 95 % bootstrap interval over problems.

        Several traces of a problem count together.

        Args:
            per: ``answer`` or ``sentence``.
            seed: seeds the resampling.
        """
        return _intervals(self.names, self._of_problems(self.rates(per)), seed)

    def _of_problems(self, rates: Float[np.ndarray, "trace behaviour"]) -> Float[np.ndarray, "problem behaviour"]:
        """Means over the traces of each problem."""
        places: dict[str, list[int]] = {}
        for at, problem in enumerate(self.problem_ids):
            places.setdefault(problem, []).append(at)
        if len(places) == len(self):
            return rates
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a problem without a sentence has no rate
            return np.stack([np.nanmean(rates[some], axis=0) for some in places.values()])

    def by_correct(self) -> dict[str, "BehaviourCounts"]:
        """Split into ``correct`` and ``incorrect`` traces; those that could not be graded are in neither."""
        return {
            name: self._only(np.asarray([right is wanted for right in self.correct], dtype=bool))
            for name, wanted in (("correct", True), ("incorrect", False))
        }

    def _only(self, chosen: Bool[np.ndarray, " trace"]) -> "BehaviourCounts":
        at = np.flatnonzero(chosen)
        return BehaviourCounts(
            self.scheme,
            self.names,
            self.counts[at],
            self.sentences[at],
            tuple(self.problem_ids[i] for i in at),
            tuple(self.correct[i] for i in at),
        )

    def to_dict(self, per: str = "answer", *, seed: int = 0) -> dict[str, Any]:
        """Return a dictionary for JSON: ``scheme``, ``per``, ``traces``, ``names`` and their ``mean`` and ``ci``.

        Args:
            per: ``answer`` or ``sentence``.
            seed: seeds the resampling.
        """
        means = self.mean(per, seed=seed).values()
        return {
            "scheme": self.scheme,
            "per": per,
            "traces": len(self),
            "names": list(self.names),
            "mean": [mean.value for mean in means],
            "ci": [mean.to_dict()["ci"] for mean in means],
        }

    def __repr__(self) -> str:
        total = ", ".join(f"{name} {n}" for name, n in zip(self.names, self.counts.sum(0).tolist(), strict=True))
        return f"BehaviourCounts({self.scheme}, {len(self)} traces: {total})"

    def _repr_html_(self) -> str:
        per_answer, per_sentence, totals = self.mean(), self.mean("sentence"), self.counts.sum(0).tolist()
        rows = [
            (name, str(total), str(per_answer[name]), str(per_sentence[name]))
            for name, total in zip(self.names, totals, strict=True)
        ]
        caption = f"{self.scheme}: {len(self)} traces, {int(self.sentences.sum())} sentences"
        return html_table(["", "all", "per answer", "per sentence"], rows, caption)


@dataclass(frozen=True)
class Comparison:
    """Behaviour counts on the same problems before and after a change, made by ``compare_counts``."""

    scheme: str
    per: str
    """``answer`` or ``sentence``."""
    problems: int
    """The number of problems that were compared."""
    before: dict[str, float]
    """The mean of each behaviour over problems before the change."""
    after: dict[str, float]
    """The same after it."""
    difference: dict[str, Interval]
    """After minus before, with a 95 % paired bootstrap interval over problems."""

    def _repr_html_(self) -> str:
        rows = [
            (name, f"{self.before[name]:.3g}", f"{self.after[name]:.3g}", str(difference))
            for name, difference in self.difference.items()
        ]
        caption = f"{self.scheme} per {self.per}, {self.problems} problems"
        return html_table(["", "before", "after", "difference"], rows, caption)


def compare_counts(
    before: BehaviourCounts, after: BehaviourCounts, *, per: str = "answer", seed: int = 0
) -> Comparison:
    """Compare behaviour counts before and after a change to the model (steering, training, another prompt).

    Traces are paired by problem; several traces of a problem are averaged. Per sentence, a problem without sentences on
    one side is left out on both.

    Args:
        before: counts of the traces before the change.
        after: counts of the same scheme on the same problems after it.
        per: ``answer`` or ``sentence``.
        seed: seeds the resampling.

    Raises:
        ProbeError: if schemes or problems differ.
    """
    if (before.scheme, before.names) != (after.scheme, after.names):
        raise ProbeError(f"counts of the schemes {before.scheme} and {after.scheme} cannot be compared; use one scheme")
    if set(before.problem_ids) != set(after.problem_ids):
        odd = min(set(before.problem_ids) ^ set(after.problem_ids))
        raise ProbeError(f"the two sides are not over the same problems: '{odd}' is on one side only")
    problems = list(dict.fromkeys(before.problem_ids))
    first, second = _by_problem(before, per, problems), _by_problem(after, per, problems)
    both = ~np.isnan(first + second).any(1)
    first, second = first[both], second[both]
    return Comparison(
        before.scheme,
        per,
        int(both.sum()),
        _means(before.names, first),
        _means(before.names, second),
        _intervals(before.names, second - first, seed),
    )


def _by_problem(counts: BehaviourCounts, per: str, problems: Sequence[str]) -> Float[np.ndarray, "problem behaviour"]:
    """The mean rates of each problem's traces; NaN if none of them has a rate."""
    place = {problem: i for i, problem in enumerate(problems)}
    at = np.asarray([place[problem] for problem in counts.problem_ids], dtype=int)
    rates = counts.rates(per)
    known = ~np.isnan(rates).any(1)
    total, n = np.zeros((len(problems), len(counts.names))), np.zeros(len(problems))
    np.add.at(total, at[known], rates[known])
    np.add.at(n, at[known], 1)
    return total / np.where(n > 0, n, np.nan)[:, None]


def _means(names: Sequence[str], rows: Float[np.ndarray, "row behaviour"]) -> dict[str, float]:
    means = rows.mean(0) if len(rows) else np.full(len(names), np.nan)
    return dict(zip(names, means.tolist(), strict=True))


def _intervals(names: Sequence[str], rows: Float[np.ndarray, "row behaviour"], seed: int) -> dict[str, Interval]:
    """The mean of each column, with its interval, over the rows without NaN."""
    return dict(zip(names, column_intervals(rows[~np.isnan(rows).any(1)], seed=seed), strict=True))

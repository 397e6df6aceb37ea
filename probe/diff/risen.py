"""The behaviour that training made more frequent, where nobody names one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probe.counters import SCHEMES
from probe.errors import NotApplicable
from probe.models import GREEDY, Pair, Sampling
from probe.problems import Problem, ProblemSet
from probe.taxonomy import Behaviour
from probe.traces import Traces, generate_traces

SCHEME = "habits"
"""The counters from which one is chosen if sentences have no types."""
_LEAST = 8
"""A counter is chosen only if at least so many sentences of the thinking model show it."""


@dataclass(frozen=True)
class Risen:
    """The behaviour whose share of sentences rose most from the base to the thinking model.

    Attributes:
        behaviour: the behaviour.
        shares: for each behaviour that was compared, its share of the sentences of the base and of the thinking model.
    """

    behaviour: Behaviour
    shares: dict[str, tuple[float, float]]

    @property
    def said(self) -> str:
        """What was chosen, in words."""
        before, after = self.shares[self.behaviour.name]
        way = "rose most" if after > before else "fell least"
        return (
            f"{self.behaviour.name}, whose share of sentences {way} from base to thinking: {before:.1%} → {after:.1%}"
        )


def risen_behaviour(
    pair: Pair,
    problem_set: ProblemSet,
    problems: Sequence[Problem],
    traces: Traces,
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = False,
) -> Risen:
    """Find the behaviour whose share of sentences rose most, by letting the base solve the same problems.

    The candidates are the sentence types of the problem set or, where it has none, the counters of ``habits``.

    Args:
        traces: traces of the thinking model on these problems.
        max_new_tokens: the largest number of tokens of a trace of the base.
        sampling: how the base is sampled; it must be how the traces of the thinking model were, or the shares differ
            for another reason than training.
        seed: seeds the sampling.
        folder: keeps the base's traces, so that an interrupted call resumes; None keeps nothing.
        progress: show a progress bar.

    Raises:
        NotApplicable: if hardly any sentence of the thinking model shows a candidate.
    """
    if problem_set.sentence_type is None:
        candidates = [Behaviour.of_counter(f"{SCHEME}:{name}") for name in SCHEMES[SCHEME].names]
        least = _LEAST
    else:
        kinds = problem_set.sentence_types or sorted(
            {kind for each in traces for text in each.sentence_texts if (kind := problem_set.sentence_type(text))}
        )
        candidates = [Behaviour.of_type(problem_set, name) for name in sorted(kinds)]
        least = 1
    marks = {each.name: each.marks(traces) for each in candidates}
    shown = [each for each in candidates if sum(map(sum, marks[each.name])) >= least]
    if not shown:
        names = ", ".join(each.name for each in candidates)
        raise NotApplicable(
            f"fewer than {least} sentences of {pair.thinking.name} show any of {names}: name a behaviour (a counter, a "
            "category or a pattern), or give more traces"
        )
    base = generate_traces(
        pair.base, problem_set, problems,
        max_new_tokens=max_new_tokens, sampling=sampling, seed=seed, folder=folder, progress=progress,
    )  # fmt: skip
    shares = {each.name: (_share(each.marks(base)), _share(marks[each.name])) for each in shown}
    best = max(shown, key=lambda each: shares[each.name][1] - shares[each.name][0])
    return Risen(best, shares)


def _share(marks: list[list[bool]]) -> float:
    return sum(map(sum, marks)) / max(1, sum(map(len, marks)))

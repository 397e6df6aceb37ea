"""What a run has found so far, in sentences that it tells as soon as they are known."""

from collections.abc import Callable

from probe.hybrid import gap_recovered
from probe.pipeline.run.arms import SEED
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.run.finished import Finished
from probe.statistics import score_interval

Tell = Callable[[str], object]
"""Receives one sentence at a time."""
_NAMED = 3
"""The number of behaviours that are named."""


def both_models(finished: Finished) -> str:
    """How many test problems both models solve."""
    n = len(finished.experiment.inputs.test)
    shares = [_share(finished, name) for name in ("base", "thinking")]
    if None in shares:
        return f"no answers to the {n:,} test problems could be graded"
    return f"base solves {shares[0]} and thinking {shares[1]} of {n:,} test problems"


def behaviours(experiment: Experiment) -> str:
    """How many behaviours were found, and the first of them."""
    taxonomy, n = experiment.taxonomy, len(experiment.acts[0])
    named = "; ".join(taxonomy.names[:_NAMED]) + "; …" * (taxonomy.n_behaviours > _NAMED)
    return f"{taxonomy.n_behaviours} behaviours in {n:,} sentences ({named})"


def vectors(experiment: Experiment) -> str:
    """How many vectors were learned, and where they steer."""
    made = experiment.vectors
    seeds = len(made.seeds)
    times = "" if seeds == 1 else f" with each of {seeds} seeds"
    return f"one vector for each behaviour is learned at resid_post.{made.layer}{times}"


def arm(finished: Finished, name: str) -> str:
    """What an arm solves and how much of the gap it recovers."""
    named = f"hybrid with seed {name.removeprefix(SEED)}" if name.startswith(SEED) else name
    share, correct = _share(finished, name), finished.correct
    if share is None:
        return f"no answer of {named} could be graded"
    gap = gap_recovered(correct[name], correct["base"], correct["thinking"], seed=finished.experiment.config.seed)
    if gap["value"] is None:
        return f"{named} solves {share}; there is no gap to recover"
    interval = "" if gap["ci"] is None else " [{}, {}]".format(*(_percent(end) for end in gap["ci"]))
    return f"{named} solves {share} and recovers {_percent(gap['value'])}%{interval} of the gap"


def _share(finished: Finished, name: str) -> str | None:
    """The share of test problems that an arm solves; None if none was graded."""
    value = score_interval(finished.correct[name]).value
    return None if value is None else f"{_percent(value)}%"


def _percent(value: float) -> str:
    return f"{round(100 * value)}".replace("-", "−")

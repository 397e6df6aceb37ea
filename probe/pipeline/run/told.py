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
    return f"of {n:,} test problems, {_solved(finished, 'base')}, {_solved(finished, 'thinking')}"


def behaviours(experiment: Experiment) -> str:
    """How many behaviours were found, and the first of them."""
    taxonomy, n = experiment.taxonomy, len(experiment.acts[0].texts)
    named = "; ".join(taxonomy.names[:_NAMED]) + "; …" * (taxonomy.n_behaviours > _NAMED)
    return f"{taxonomy.n_behaviours} behaviours in {n:,} sentences ({named})"


def vectors(experiment: Experiment) -> str:
    """How many vectors were learned, and where they steer."""
    made = experiment.vectors
    seeds = len(made.seeds)
    times = "" if seeds == 1 else f", {seeds} times, with a seed each"
    return f"one vector for each behaviour is learned at resid_post.{made.layer}{times}"


def arm(finished: Finished, name: str) -> str:
    """What an arm solves and how much of the gap it recovers."""
    correct = finished.correct
    gap = gap_recovered(correct[name], correct["base"], correct["thinking"], seed=finished.experiment.config.seed)
    recovered = "there is no gap to recover"
    if gap["value"] is not None:
        recovered = f"it recovers {gap['value']:.0%} of the gap"
    if gap["ci"] is not None:
        recovered += " [{:.0f}, {:.0f}]".format(*(100 * end for end in gap["ci"]))
    return f"{_solved(finished, name)}; {recovered.replace('-', '−')}"


def _solved(finished: Finished, name: str) -> str:
    found = score_interval(finished.correct[name])
    named = f"hybrid with seed {name.removeprefix(SEED)}" if name.startswith(SEED) else name
    return f"{named}: {found.value:.0%} solved" if found.n else f"{named}: no answer could be graded"

"""The learning curve of a run: how much of the gap is recovered with fewer train traces."""

import shutil
from typing import Any

from probe.hybrid import gap_recovered
from probe.pipeline.run.arms import SEED, arm_result
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.run.stages import BELOW
from probe.pipeline.run.training import not_converged, training
from probe.statistics import Grades, score_interval

_LEARNED = ("hybrid", "oracle-free", "single-vector", "rank-1", "lora", "lora-rank-1", "bias")
"""Arms that are learned from traces; of these, the curve has the arms that were run."""


def learning_curve(experiment: Experiment) -> list[dict[str, Any]]:
    """Learn and decode the learned arms again for each number of train traces in ``config.curve``.

    Returns:
        For each number its ``traces`` and ``arms``: for each arm, and for the hybrid with each further seed, its
        ``accuracy``, ``gap_recovered`` and the parts that have ``not_converged``.
    """
    config, inputs = experiment.config, experiment.inputs
    names = [name for name in _LEARNED if name in config.hybrid.names]
    names += [f"{SEED}{seed}" for seed in config.steering.seeds[1:]]

    own = [trace.text for trace in experiment.rollouts.thinking]

    def graded(texts: list[str]) -> Grades:
        return inputs.graded(inputs.test, texts, own)

    base, thinking = (graded([trace.text for trace in of]) for of in experiment.rollouts.of_test.values())
    points = []
    for n in sorted(set(config.curve)):
        smaller = experiment.with_traces(n)
        correct = {name: graded(arm_result(smaller, name).texts) for name in names}
        shutil.rmtree(smaller.folder.path / BELOW, ignore_errors=True)
        trained = training(smaller, names)
        arms = {}
        for name, each in correct.items():
            arms[name] = {
                "accuracy": score_interval(each).value,
                "gap_recovered": gap_recovered(each, base, thinking, seed=config.seed),
                "not_converged": not_converged(trained, name),
            }
        points.append({"traces": n, "arms": arms})
    return points

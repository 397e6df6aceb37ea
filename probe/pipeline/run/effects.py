"""What the vectors of a run do: whether each brings about its behaviour, and how well gates are named."""

from pathlib import Path
from typing import Any

import torch

from probe.config import read_as
from probe.files import write_json
from probe.hybrid import flip_rates, naming_agreement
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.stages import problems_of

_TRAINED = 10
"""A vector with fewer train gates than this counts as not trained."""


def effects(experiment: Experiment) -> dict[str, Any]:
    """Measure whether the vectors bring about their behaviours, and how well each way of naming a gate does.

    Returns:
        ``flip``: rates of sentence starts whose behaviour changes; ``gates``: train gates of each behaviour;
        ``naming``: agreement of each way of naming a gate with the sentence that follows.
    """
    stages, taxonomy, rollouts = experiment.stages, experiment.taxonomy, experiment.rollouts
    inputs, seed = stages.inputs, stages.config.seed

    def make(folder: Path, finished: bool) -> dict[str, Any]:
        if not finished:
            train, validation = experiment.gates
            counts = torch.zeros(taxonomy.n_behaviours, dtype=torch.long)
            for batch in train:
                counts += torch.bincount(batch.behaviour[batch.gate], minlength=taxonomy.n_behaviours).cpu()
            trained = [k for k, count in enumerate(counts.tolist()) if count >= _TRAINED]
            rates = flip_rates(
                inputs.pair,
                taxonomy,
                [trace for trace in rollouts.base if trace.sample == 0],
                inputs.test,
                mechanism=experiment.vectors.seeds[0],
                behaviours=trained,
                seed=seed,
            )
            naming = naming_agreement(
                inputs.pair,
                taxonomy,
                rollouts.validation,
                problems_of(rollouts.validation, inputs.validation),
                reader=experiment.vectors.reader,
                gates=validation,
            )
            found = {"flip": rates.to_dict(), "gates": counts.tolist(), "naming": naming}
            write_json(folder / "effects.json", found)
        return read_as(dict[str, Any], folder / "effects.json")

    return experiment.branch("effects", make, {}, seed)

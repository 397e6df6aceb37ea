"""Arms of which one setting is chosen on validation problems."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from probe.config import read_as
from probe.files import write_json
from probe.hybrid import Arm, evaluate_arm
from probe.models import Model, Pair, PairSampling
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.run.inputs import Inputs
from probe.progress import say
from probe.statistics import scores

CHOSEN = "chosen.json"


class Tried(TypedDict):
    """A setting, and what it gave on validation problems."""

    setting: str
    accuracy: float | None
    tokens_per_answer: float
    changed: NotRequired[float]
    """The share of the tokens that were inserted or steered."""


class Choice(TypedDict):
    """What ``chosen.json`` holds."""

    chosen: str
    tried: list[Tried]
    note: NotRequired[str]
    """What is wrong with the choice."""


def models_of(inputs: Inputs, arm: Arm, on_thinking: bool) -> tuple[Pair | Model, PairSampling]:
    """The models that an arm is decoded with, and how they are sampled.

    Args:
        on_thinking: whether the thinking model writes it alone.
    """
    sampling = inputs.sampling
    if on_thinking:
        return inputs.pair.thinking, PairSampling(sampling.thinking, sampling.thinking, sampling.samples)
    return inputs.pair if arm.asks else inputs.pair.base, sampling


def chosen(experiment: Experiment, arms: Mapping[str, Arm], settings: Mapping[str, Any], on_thinking: bool) -> Arm:
    """Choose the arm with the highest accuracy on validation problems, of equal ones the one with fewer tokens.

    Every problem has one answer. A setting that changed none is chosen only if no setting changed any; a note says so.
    The choice and what each setting gave are kept in ``chosen/NAME/chosen.json``.

    Args:
        experiment: the run.
        arms: the candidates, by their settings; all have the same name.
        settings: what the candidates depend on.
        on_thinking: whether the thinking model alone writes the answers.
    """
    inputs, config = experiment.inputs, experiment.config
    name = next(iter(arms.values())).name
    problems = inputs.validation[: config.hybrid.tuned_on]

    def tried(setting: str, arm: Arm, folder: Path) -> Tried:
        models, sampling = models_of(inputs, arm, on_thinking)
        done = evaluate_arm(
            models,
            arm,
            problems,
            max_new_tokens=inputs.max_new_tokens,
            sampling=PairSampling(sampling.base, sampling.thinking, 1),
            batch_size=config.decoding.batch_size,
            seed=config.seed,
            folder=folder,
        )
        # An answer that the thinking model wrote is graded after its own prompt.
        grades = inputs.graded(problems, done.texts, done.texts if on_thinking else [""] * len(problems))
        known = [score for score in scores(grades) if score is not None]
        accuracy = float(np.mean(known)) if known else None
        tokens = done.emitted / len(problems)
        return {"setting": setting, "accuracy": accuracy, "tokens_per_answer": tokens, "changed": done.steered_fraction}

    def make(folder: Path, finished: bool) -> Arm:
        if not finished:
            found = [tried(setting, arm, folder / str(number)) for number, (setting, arm) in enumerate(arms.items())]
            changing = [each for each in found if each.get("changed")]
            best = max(changing or found, key=lambda each: (each["accuracy"] or 0.0, -each["tokens_per_answer"]))
            made: Choice = {"chosen": best["setting"], "tried": found}
            if not changing:
                made["note"] = f"no setting changed a validation answer, so {name} may be the model that it changes"
                if experiment.stages.progress:
                    say(f"warning: {made['note']}")
            write_json(folder / CHOSEN, made)
        return arms[read_as(Choice, folder / CHOSEN)["chosen"]]

    return experiment.branch(f"chosen/{name}", make, settings, config.seed, how=("decoding.batch_size",))

"""Arms of which one setting is chosen on validation problems."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from probe.config import read_as
from probe.errors import ProbeError
from probe.files import write_json
from probe.hybrid import Arm, evaluate_arm
from probe.models import Model, Pair, PairSampling
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.run.inputs import Inputs
from probe.progress import say
from probe.statistics import scores
from probe.traces import Trace, generate_traces

CHOSEN = "chosen.json"


class Tried(TypedDict):
    """A setting, and what it gave on validation problems."""

    setting: str
    accuracy: float | None
    tokens_per_answer: float
    changed: NotRequired[float]
    """The share of the answers that differ from what the model answers alone."""


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


def own_answers(experiment: Experiment, on_thinking: bool) -> Sequence[Trace]:
    """What a model answers alone to the validation problems on which settings are tried; all arms share its answers.

    Args:
        on_thinking: whether the thinking model answers, in place of the base model.
    """
    inputs, config = experiment.inputs, experiment.config
    problems = inputs.validation[: config.hybrid.tuned_on]
    if on_thinking and inputs.imported is None and not config.thinking_url:
        traces = experiment.rollouts.validation
        return [traces[i] for i in range(len(problems))]
    kept = f"{'thinking' if on_thinking else 'base'}-answers-{len(problems)}"
    return generate_traces(
        inputs.pair.thinking if on_thinking else inputs.pair.base,
        inputs.problem_set,
        problems,
        max_new_tokens=inputs.max_new_tokens,
        sampling=inputs.sampling.thinking if on_thinking else inputs.sampling.base,
        seed=config.seed,
        think_close=inputs.pair.think_tags,
        batch_size=config.decoding.batch_size,
        folder=experiment.folder.path / "chosen" / kept,
    )


def chosen(experiment: Experiment, arms: Mapping[str, Arm], settings: Mapping[str, Any], on_thinking: bool) -> Arm:
    """Choose the arm with the highest accuracy on validation problems, of equal ones the one with fewer tokens.

    Every problem has one answer. A setting that changed none is chosen only if no setting changed any; a note says so,
    which is shown as a warning. The choice and what each setting gave are kept in ``chosen/NAME/chosen.json``.

    Args:
        experiment: the run.
        arms: the candidates, by their settings; all have the same name.
        settings: what the candidates depend on.
        on_thinking: whether the thinking model alone writes the answers.

    Raises:
        ProbeError: if the kept choice is none of the candidates.
    """
    inputs, config = experiment.inputs, experiment.config
    name = next(iter(arms.values())).name
    problems = inputs.validation[: config.hybrid.tuned_on]

    def tried(setting: str, arm: Arm, folder: Path, own: Sequence[Trace]) -> Tried:
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
        # An arm may steer every token and change none, or insert what the model writes anyway.
        pairs = zip(done.traces, own, strict=True)
        changed = float(np.mean([any(new.steered) and list(new.tokens) != list(old.tokens) for new, old in pairs]))
        return {"setting": setting, "accuracy": accuracy, "tokens_per_answer": tokens, "changed": changed}

    def make(folder: Path, finished: bool) -> Choice:
        if not finished:
            own = own_answers(experiment, on_thinking)
            found = [
                tried(setting, arm, folder / str(number), own) for number, (setting, arm) in enumerate(arms.items())
            ]
            changing = [each for each in found if each.get("changed")]
            best = max(changing or found, key=lambda each: (each["accuracy"] or 0.0, -each["tokens_per_answer"]))
            made: Choice = {"chosen": best["setting"], "tried": found}
            if not changing:
                made["note"] = f"no setting changed a validation answer, so {name} may be the model that it changes"
            write_json(folder / CHOSEN, made)
        return read_as(Choice, folder / CHOSEN)

    choice = experiment.branch(f"chosen/{name}", make, settings, config.seed, how=("decoding.batch_size",))
    if choice["chosen"] not in arms:
        folder = experiment.folder.path
        raise ProbeError(
            f"{folder / 'chosen' / name / CHOSEN} chose {choice['chosen']!r}, which is not tried any more; remove "
            f"{folder / 'chosen' / name} and {folder / 'arms' / name}, and run the same command again"
        )
    # The choice may have been made by a worker, which shows nothing.
    if "note" in choice and experiment.stages.progress:
        say(f"warning: {choice['note']}")
    return arms[choice["chosen"]]

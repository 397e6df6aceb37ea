"""Arms that are not hybrids: the base model answers in another way than token by token with the parts of a hybrid."""

from pathlib import Path
from typing import Any

from probe.hybrid import (
    ArmResult,
    ConfidenceReward,
    GradeReward,
    VerifierReward,
    few_shot_prompt,
    handbook_prompt,
    prompted_ids,
    run_latent_seek,
    run_lora,
    run_prompted,
)
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.run.learned import adapter
from probe.pipeline.stages import problems_of


def limits(experiment: Experiment) -> dict[str, Any]:
    """The settings with which a model that is not a hybrid decodes."""
    stages = experiment.stages
    return {
        "max_new_tokens": stages.inputs.max_new_tokens,
        "seed": stages.config.seed,
        "batch_size": stages.config.decoding.batch_size,
        "progress": stages.progress,
    }


def _as_base(experiment: Experiment) -> dict[str, Any]:
    """The settings with which a model that replaces the base model decodes."""
    sampling = experiment.inputs.sampling
    return {"sampling": sampling.base, "samples": sampling.number(sampling.base), **limits(experiment)}


def lora(experiment: Experiment, name: str, folder: Path) -> ArmResult:
    """Answer with the base model and a LoRA, which is trained if it is missing."""
    inputs, trained = experiment.inputs, adapter(experiment, name)
    return run_lora(inputs.pair.base, trained, name, inputs.test, folder=folder, **_as_base(experiment))


def prompted(experiment: Experiment, name: str, folder: Path) -> ArmResult:
    """Answer with the base model after another prompt."""
    inputs, prompts = experiment.inputs, _prompts(experiment, name)
    return run_prompted(inputs.pair.base, name, inputs.test, prompts, folder=folder, **_as_base(experiment))


def check_prompts(experiment: Experiment, name: str) -> None:
    """Refuse prompts that cannot be made, or do not fit into the positions of the base model."""
    inputs = experiment.inputs
    prompted_ids(inputs.pair.base, name, _prompts(experiment, name), inputs.max_new_tokens)


def _prompts(experiment: Experiment, name: str) -> list[str]:
    inputs, base = experiment.inputs, experiment.inputs.pair.base
    if name == "handbook":
        return [handbook_prompt(base, experiment.taxonomy, problem.question) for problem in inputs.test]
    train, shots = experiment.rollouts.train, experiment.config.hybrid.shots
    asked = problems_of(train, inputs.train)
    return [few_shot_prompt(base, train, asked, problem.question, shots=shots) for problem in inputs.test]


def latent_seek(experiment: Experiment, name: str, folder: Path) -> ArmResult:
    """Answer with the base model by LatentSeek."""
    inputs, how = experiment.inputs, _as_base(experiment)
    rewards = _rewards(experiment, name)
    config = experiment.config.latent_seek
    return run_latent_seek(inputs.pair.base, inputs.test, rewards, name, config=config, folder=folder, **how)


def _rewards(experiment: Experiment, name: str) -> ConfidenceReward | GradeReward | VerifierReward:
    config, inputs = experiment.config, experiment.inputs
    if name == "latent-seek-grade":
        return GradeReward(inputs.pair.base, inputs.problem_set, inputs.pair.think_tags)
    if config.latent_seek.reward == "confidence":
        return ConfidenceReward()
    return VerifierReward(inputs.pair.base, config.latent_seek.verdict_tokens, config.decoding.batch_size)


def check_latent_seek(experiment: Experiment, name: str) -> None:
    """Refuse a base model that passes no gradient, or cannot read the verifications."""
    rewards, inputs = _rewards(experiment, name), experiment.inputs
    inputs.pair.base.check_gradient("LatentSeek")
    if isinstance(rewards, VerifierReward):
        rewards.check(inputs.test, inputs.max_new_tokens)

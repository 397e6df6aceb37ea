"""What single arms need beside the hybrid's vectors: further mechanisms and adapters, each learned once."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from probe.config import to_dict
from probe.hybrid import distil_lora
from probe.models import seeded
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.run.stages import BELOW, GATES_BY_TOKEN, Gates, write_training
from probe.pipeline.stages import problems_of
from probe.steering import (
    BehaviourVectors,
    FixedVectors,
    Learned,
    Mechanism,
    RankOne,
    SteeringConfig,
    decoder_rows,
    difference_of_means,
    difference_of_texts,
    learn_mechanism,
    learn_on_sentences,
    load_mechanism,
    sentence_batches,
    typical_coordinate,
)
from probe.traces import generate_traces

RANKS = {"lora": 8, "lora-rank-1": 1}
"""Ranks of the adapters, by arm."""


def mechanism(experiment: Experiment, name: str) -> Mechanism:
    """Load a mechanism other than the hybrid's; it is learned if it is missing.

    Args:
        name: one of ``mean-difference``, ``decoder-rows``, ``rank-1``, ``v2``, ``bias``, ``v1``, ``v1-bias``,
            ``addition`` and ``addition-on-thinking``.
    """
    config, base = experiment.config, experiment.inputs.pair.base
    kept = "v1" if name == "v1-bias" else name  # learning the vectors of version 1 gives its bias too

    def make(folder: Path, finished: bool) -> Mechanism:
        if not finished:
            for part, learned in _LEARNED[kept](experiment).items():
                if isinstance(learned, Learned):
                    learned.vectors.save(folder / part)
                    steps = config.steering.steps
                    write_training(folder / part, learned.history, converged=learned.converged, steps=steps)
                else:
                    learned.save(folder / part)
        return load_mechanism(folder / name)

    steering = _published(config.steering) if name == "v2" else config.steering
    settings: dict[str, Any] = {"steering": to_dict(steering)}
    if name.startswith("addition"):
        settings["addition_texts"] = config.hybrid.addition_texts
    steered = experiment.inputs.pair.thinking if name == "addition-on-thinking" else base
    return experiment.branch(f"mechanisms/{kept}", make, settings, config.seed).to(steered.device)


def adapter(experiment: Experiment, name: str) -> Path:
    """Find the folder of a LoRA adapter; it is trained if it is missing."""
    config, inputs, rollouts = experiment.config, experiment.inputs, experiment.rollouts

    def make(folder: Path, finished: bool) -> Path:
        if not finished:
            distil_lora(
                inputs.pair.base,
                (rollouts.train, problems_of(rollouts.train, inputs.train)),
                (rollouts.validation, problems_of(rollouts.validation, inputs.validation)),
                rank=RANKS[name],
                folder=folder,
                config=config.distil,
                seed=config.seed,
                progress=experiment.stages.progress,
            )
        return folder

    return experiment.branch(f"adapters/{name}", make, to_dict(config.distil), config.seed)


def _mean_difference(experiment: Experiment) -> dict[str, Mechanism | Learned]:
    base, vectors, (train, _) = experiment.inputs.pair.base, experiment.vectors, experiment.gates
    k, persistent = experiment.taxonomy.n_behaviours, experiment.config.steering.persistent
    return {"mean-difference": difference_of_means(base, train, k, vectors.layer, persistent=persistent)}


def _decoder_rows(experiment: Experiment) -> dict[str, Mechanism | Learned]:
    base, vectors = experiment.inputs.pair.base, experiment.vectors
    norms, persistent = vectors.seeds[0].vectors.norm(dim=1), experiment.config.steering.persistent
    return {"decoder-rows": decoder_rows(experiment.taxonomy, norms, base, vectors.layer, persistent=persistent)}


def _rank_1(experiment: Experiment) -> dict[str, Mechanism | Learned]:
    base, layer, config = (
        experiment.inputs.pair.base,
        experiment.vectors.layer,
        experiment.config.steering,
    )
    unit = typical_coordinate(base, experiment.gates[0][:4], layer)
    fresh = RankOne(experiment.taxonomy.n_behaviours, base.d_model, layer, unit=unit, persistent=config.persistent)
    return {"rank-1": _at_gates(experiment, fresh, experiment.gates, config)}


def _v2(experiment: Experiment) -> dict[str, Mechanism | Learned]:
    base, layer, k = experiment.inputs.pair.base, experiment.vectors.layer, experiment.taxonomy.n_behaviours
    config = _published(experiment.config.steering)
    # Version 2 names a gate by what the taxonomy reads off the single token.
    folder = experiment.folder.path / GATES_BY_TOKEN
    gates = experiment.stages.gates(experiment.rollouts, experiment.taxonomy, None, folder)
    unit = typical_coordinate(base, gates[0][:4], layer)
    with seeded(config.seeds[0]):  # layers accept no generator
        fresh = BehaviourVectors(k, base.d_model, layer, hidden=config.hidden, unit=unit, persistent=config.persistent)
    return {"v2": _at_gates(experiment, fresh, gates, config)}


def _at_gates(experiment: Experiment, fresh: Mechanism, gates: Gates, config: SteeringConfig) -> Learned:
    base, progress = experiment.inputs.pair.base, experiment.stages.progress
    below = experiment.folder.path / BELOW
    return learn_mechanism(base, fresh, *gates, config=config, seed=config.seeds[0], folder=below, progress=progress)


def _bias(experiment: Experiment) -> dict[str, Mechanism | Learned]:
    _, bias = _on_sentences(experiment, 0)
    vectors = FixedVectors.of(bias.vectors.vectors, experiment.vectors.layer, persistent=True)
    return {"bias": replace(bias, vectors=vectors)}


def _v1(experiment: Experiment) -> dict[str, Mechanism | Learned]:
    vectors, bias = _on_sentences(experiment, experiment.taxonomy.n_behaviours)
    return {"v1": vectors, "v1-bias": bias}


def _on_sentences(experiment: Experiment, n_behaviours: int) -> tuple[Learned, Learned]:
    inputs, rollouts = experiment.inputs, experiment.rollouts
    config, acts = experiment.config.steering, experiment.acts
    train, validation = (
        sentence_batches(inputs.pair, experiment.taxonomy, traces, problems_of(traces, problems), acts=each)
        for traces, problems, each in (
            (rollouts.train, inputs.train, acts[0]),
            (rollouts.validation, inputs.validation, acts[1]),
        )
    )
    return learn_on_sentences(
        inputs.pair.base,
        train,
        validation,
        n_behaviours=n_behaviours,
        layer=experiment.vectors.layer,
        config=config,
        seed=config.seeds[0],
        folder=experiment.folder.path / BELOW,
        progress=experiment.stages.progress,
    )


def _published(config: SteeringConfig) -> SteeringConfig:
    """The settings of version 2 as published (2510.07364v4).

    Its learning rate counts typical coordinates here, and training lasts until it converges instead of 10 epochs.
    """
    return replace(config, hidden=512, lr_vectors=0.01, lr_strength=1e-3, balance=True)


def _addition(experiment: Experiment, name: str) -> dict[str, Mechanism | Learned]:
    """The difference of means over the answers of both models, read in the model that is steered."""
    inputs, layer = experiment.inputs, experiment.vectors.layer
    pair, config = inputs.pair, experiment.config
    model = pair.thinking if name == "addition-on-thinking" else pair.base
    problems = inputs.train[: config.hybrid.addition_texts]
    own = generate_traces(
        pair.base,
        inputs.problem_set,
        problems,
        max_new_tokens=inputs.max_new_tokens,
        sampling=inputs.sampling.base,
        seed=config.seed,
        batch_size=config.decoding.batch_size,
        folder=experiment.folder.path / "mechanisms" / f"addition-answers-{len(problems)}",  # of both arms
    )
    train = experiment.rollouts.train
    wanted, asked = {problem.id for problem in problems}, problems_of(train, inputs.train)
    thought = [(problem, train[i]) for i, problem in enumerate(asked) if problem.id in wanted]
    texts, others = (
        [(model.prompt_ids(problem.question), trace.tokens) for problem, trace in side]
        for side in (thought, zip(problems, own, strict=True))
    )
    return {name: difference_of_texts(model, texts, others, same_depth(layer, pair.base.n_layers, model.n_layers))}


def same_depth(layer: int, layers: int, others: int) -> int:
    """The layer of another model that is at the same share of its depth.

    Args:
        layer: a layer of a model.
        layers, others: the number of layers of that model, and of the other.
    """
    return min(round(layer * others / layers), others - 1)


_LEARNED: Mapping[str, Callable[[Experiment], dict[str, Mechanism | Learned]]] = {
    "mean-difference": _mean_difference,
    "decoder-rows": _decoder_rows,
    "rank-1": _rank_1,
    "v2": _v2,
    "bias": _bias,
    "v1": _v1,
    "addition": partial(_addition, name="addition"),
    "addition-on-thinking": partial(_addition, name="addition-on-thinking"),
}
"""How the mechanisms of each folder below ``mechanisms/`` are made."""

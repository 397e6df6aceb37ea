"""The arms of a run: what they need is made once, each arm once, everything in its own folder below the run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from probe.activations import SentenceActivations
from probe.config import nearest, to_dict
from probe.errors import ProbeError
from probe.files import read_json, write_json
from probe.hybrid import (
    ARMS,
    AddVector,
    Always,
    Arm,
    ArmResult,
    FixedStrength,
    ForceToken,
    Never,
    OneBehaviour,
    control_arms,
    distil_lora,
    evaluate_arm,
    few_shot_prompt,
    flip_rates,
    fusion_arm,
    handbook_prompt,
    hybrid_arm,
    naming_agreement,
    oracle_free_arm,
    run_lora,
    run_majority,
    run_prompted,
    speculative_arm,
    v1_arms,
    v2_arms,
    with_mechanism,
)
from probe.pipeline.folder import RunFolder
from probe.pipeline.run.stages import Rollouts, Stages, Vectors
from probe.pipeline.run.workers import run_arms
from probe.steering import (
    BasePolicy,
    BehaviourVectors,
    FixedVectors,
    GateBatch,
    Mechanism,
    RankOne,
    SteeringConfig,
    decoder_rows,
    difference_of_means,
    learn_mechanism,
    learn_on_sentences,
    learn_policy,
    load_mechanism,
    policy_data,
    residual_bits,
    sentence_batches,
    typical_coordinate,
)
from probe.taxonomy import Taxonomy

RANKS = {"lora": 8, "lora-rank-1": 1}
#: Train gates without which a vector counts as not trained.
_TRAINED = 10


@dataclass
class Experiment:
    """What the stages before have made, and the arms that are run on it."""

    stages: Stages
    folder: RunFolder
    rollouts: Rollouts
    acts: tuple[SentenceActivations, ...]
    taxonomy: Taxonomy
    vectors: Vectors
    done: dict[str, ArmResult] = field(default_factory=dict)

    def run(self) -> dict[str, ArmResult]:
        """Every arm that the settings name, and the hybrid with the vectors of every further seed."""
        config = self.stages.config
        seeds = [f"hybrid-seed-{seed}" for seed in config.steering.seeds[1:]]
        there = [name for name in ARMS if self.folder.has(f"arms/{name}")]  # what was paid for is shown
        names = list(dict.fromkeys([*config.hybrid.names, *there, *seeds]))
        self.result("hybrid")  # others are measured by it
        missing = [name for name in names if not self.folder.has(f"arms/{name}")]
        if config.workers > 1 and len(missing) > 1:
            run_arms(config, self.folder.path, missing, progress=self.stages.progress)
        return {name: self.result(name) for name in names}

    def result(self, name: str) -> ArmResult:
        """One arm on the test problems; it is run if that has not been done."""
        if name not in self.done:
            self.done[name] = self._rollout(name) if name in _ROLLOUTS else self._decode(self.arm(name))
        return self.done[name]

    def arm(self, name: str) -> Arm:
        """The arm of this name, with what it needs learned."""
        config, taxonomy, first = self.stages.config, self.taxonomy, self.vectors.seeds[0]
        options, seed = config.hybrid, config.seed
        hybrid = hybrid_arm(self.vectors.reader, first)
        if name in ("base", "thinking"):  # each model alone, for single questions
            where = Never() if name == "base" else Always()
            return Arm(name, where, OneBehaviour(-1), FixedStrength(), ForceToken())
        if name == "hybrid":
            return hybrid
        if name.startswith("hybrid-seed-"):
            seed = int(name.removeprefix("hybrid-seed-"))
            vectors = self.vectors.seeds[config.steering.seeds.index(seed)]
            return hybrid_arm(self.vectors.reader, vectors, name)
        if name == "oracle-free":
            return oracle_free_arm(self.policy, first)
        if name in ("mean-difference", "decoder-rows", "rank-1"):
            return with_mechanism(hybrid, self.mechanism(name), name)
        if name == "bias":
            bias = self.mechanism(name)
            return Arm(name, Always(), OneBehaviour(), FixedStrength(), AddVector(bias))
        if name == "speculative":
            return speculative_arm(options.speculative_tokens)
        if name == "fusion":
            return fusion_arm(options.fusion_weight)
        if name.startswith("v1"):
            vectors, bias = self.mechanism("v1"), self.mechanism("v1-bias")
            grid = {"strengths": options.v1_strengths, "windows": options.v1_windows}
            arms = v1_arms(
                taxonomy, vectors=vectors, bias=bias, learned=first, reader=self.vectors.reader, **grid, seed=seed
            )
        elif name.startswith("v2"):
            rate = 0.0 if name == "v2" else self.result("v2").steered_fraction
            arms = v2_arms(taxonomy, self.mechanism("v2"), rate=rate, seed=seed)
        else:
            rate = self.result("hybrid").steered_fraction
            single, among = self.vectors.single, options.rerank_among
            arms = control_arms(hybrid, first, single, rate=rate, seed=seed, among=among)
        found = next((arm for arm in arms if arm.name == name), None)
        if found is None:
            raise ProbeError(f"there is no arm {name!r} that decodes token by token; {nearest(name, ARMS)}")
        return found

    def mechanism(self, name: str) -> Mechanism:
        """A mechanism beside those of the hybrid, learned if it is not there."""
        config, base = self.stages.config, self.stages.inputs.pair.base
        whole = name in ("bias", "v1", "v1-bias")
        both = "v1" if name == "v1-bias" else name  # the bias of version 1 is learned on the way

        def make(folder: Path, finished: bool) -> Mechanism:
            if not finished:
                made = self._on_sentences(both) if whole else self._at_gates(name)
                for part, mechanism in made.items():
                    mechanism.save(folder / part)
            return load_mechanism(folder / name)

        settings = {"steering": to_dict(_published(config.steering) if name == "v2" else config.steering)}
        return self.folder.branch(f"mechanisms/{both}", make, settings, config.seed).to(base.device)

    def _at_gates(self, name: str) -> dict[str, Mechanism]:
        stages, taxonomy = self.stages, self.taxonomy
        config, base, layer = stages.config.steering, stages.inputs.pair.base, self.vectors.layer
        k, seed, persistent = taxonomy.n_behaviours, config.seeds[0], config.persistent
        train, validation = self._token_gates if name == "v2" else self._gates
        if name == "mean-difference":
            return {name: difference_of_means(base, train, k, layer, persistent=persistent)}
        if name == "decoder-rows":
            norms = self.vectors.seeds[0].vectors.norm(dim=1)
            return {name: decoder_rows(taxonomy, norms, base, layer, persistent=persistent)}
        unit = typical_coordinate(base, train[:4], layer)
        fresh: Mechanism
        if name == "rank-1":
            fresh = RankOne(k, base.d_model, layer, unit=unit, persistent=persistent)
        else:
            config = _published(config)
            fresh = BehaviourVectors(k, base.d_model, layer, hidden=config.hidden, unit=unit, persistent=persistent)
        learned = learn_mechanism(base, fresh, train, validation, config=config, seed=seed, progress=stages.progress)
        return {name: learned.vectors}

    def _on_sentences(self, name: str) -> dict[str, Mechanism]:
        stages, inputs = self.stages, self.stages.inputs
        train, validation = (
            sentence_batches(inputs.pair, self.taxonomy, list(traces), problems, acts=acts)
            for traces, problems, acts in zip(
                (self.rollouts.train, self.rollouts.validation),
                (inputs.train, inputs.validation),
                self.acts,
                strict=True,
            )
        )
        config = stages.config.steering
        vectors, bias, _ = learn_on_sentences(
            inputs.pair.base,
            train,
            validation,
            n_behaviours=0 if name == "bias" else self.taxonomy.n_behaviours,
            layer=self.vectors.layer,
            config=config,
            seed=config.seeds[0],
            progress=stages.progress,
        )
        if name == "bias":
            return {name: FixedVectors.of(bias.vectors, self.vectors.layer, persistent=True)}
        return {"v1": vectors, "v1-bias": bias}

    @cached_property
    def _gates(self) -> tuple[list[GateBatch], list[GateBatch]]:
        return self.stages.gates(self.rollouts, self.taxonomy, self.acts)

    def effects(self) -> dict[str, Any]:
        """Whether vectors bring about what they are named for, and how well each way of naming them does."""
        inputs, taxonomy = self.stages.inputs, self.taxonomy

        def make(folder: Path, finished: bool) -> dict[str, Any]:
            if not finished:
                train, validation = self._gates
                counts = sum(
                    torch.bincount(each.behaviour[each.gate], minlength=taxonomy.n_behaviours) for each in train
                )
                # One at which the models hardly ever disagree has a vector that was hardly ever trained.
                trained = [k for k, count in enumerate(torch.as_tensor(counts).tolist()) if count >= _TRAINED]
                rates = flip_rates(
                    inputs.pair,
                    taxonomy,
                    list(self.rollouts.base),
                    inputs.test,
                    mechanism=self.vectors.seeds[0],
                    behaviours=trained,
                    seed=self.stages.config.seed,
                )
                naming = naming_agreement(
                    inputs.pair,
                    taxonomy,
                    list(self.rollouts.validation),
                    inputs.validation,
                    reader=self.vectors.reader,
                    gates=validation,
                )
                found = {"flip": rates.to_dict(), "gates": torch.as_tensor(counts).tolist(), "naming": naming}
                write_json(folder / "effects.json", found)
            return read_json(folder / "effects.json")

        return self.folder.branch("effects", make, {}, self.stages.config.seed)

    @cached_property
    def _token_gates(self) -> tuple[list[GateBatch], list[GateBatch]]:
        return self.stages.gates(self.rollouts, self.taxonomy, None)

    @cached_property
    def policy(self) -> BasePolicy:
        """Where and which, read off the base model alone."""
        stages, base = self.stages, self.stages.inputs.pair.base
        config = stages.config

        def make(folder: Path, finished: bool) -> BasePolicy:
            if not finished:
                layers = tuple(range(base.n_layers))
                train, validation = (policy_data(base, batches, layers) for batches in self._gates)
                policy = learn_policy(
                    train,
                    validation,
                    layers=layers,
                    n_behaviours=self.taxonomy.n_behaviours,
                    config=config.policy,
                    seed=config.seed,
                    progress=stages.progress,
                )
                policy.save(folder)
                write_json(folder / "validation.json", residual_bits(policy, validation))
            return BasePolicy.load(folder).to(base.device)

        return self.folder.branch("policy", make, to_dict(config.policy), config.seed)

    def _decode(self, arm: Arm) -> ArmResult:
        stages, inputs = self.stages, self.stages.inputs

        def make(folder: Path, finished: bool) -> ArmResult:
            return evaluate_arm(
                inputs.pair if arm.asks else inputs.pair.base,
                arm,
                inputs.test,
                max_new_tokens=inputs.max_new_tokens,
                batch_size=stages.config.decoding.batch_size,
                seed=stages.config.seed,
                folder=folder,
                progress=stages.progress and not finished,
            )

        return self._arm_stage(arm.name, make)

    def _rollout(self, name: str) -> ArmResult:
        stages, inputs = self.stages, self.stages.inputs
        config, base = stages.config, inputs.pair.base
        limits: dict[str, Any] = {
            "max_new_tokens": inputs.max_new_tokens,
            "batch_size": config.decoding.batch_size,
            "progress": stages.progress,
        }

        def prompted(prompt: Callable[[str], str]) -> Callable[[Path, bool], ArmResult]:
            prompts = [prompt(problem.question) for problem in inputs.test]
            return lambda folder, _: run_prompted(base, name, inputs.test, prompts, folder=folder, **limits)

        if name in RANKS:
            adapter = self._adapter(name)
            return self._arm_stage(name, lambda at, _: run_lora(base, adapter, name, inputs.test, folder=at, **limits))
        if name == "few-shot":
            shots, train = config.hybrid.shots, list(self.rollouts.train)
            return self._arm_stage(name, prompted(lambda q: few_shot_prompt(base, train, inputs.train, q, shots=shots)))
        if name == "handbook":
            return self._arm_stage(name, prompted(lambda q: handbook_prompt(base, self.taxonomy, q)))
        return self._arm_stage(
            name,
            lambda folder, _: run_majority(
                base,
                inputs.test,
                n=self._samples(),
                temperature=config.hybrid.majority_temperature,
                seed=config.seed,
                think_close=inputs.pair.config.think_close,
                folder=folder,
                **limits,
            ),
        )

    def _samples(self) -> int:
        """How many answers of the base model are as many tokens as both models run for one of the hybrid."""
        hybrid, base = self.result("hybrid").traces, self.rollouts.base
        ratio = 2 * sum(len(trace.tokens) for trace in hybrid) / max(1, sum(len(trace.tokens) for trace in base))
        return max(1, round(ratio))

    def _adapter(self, name: str) -> Path:
        stages, inputs = self.stages, self.stages.inputs
        config = stages.config

        def make(folder: Path, finished: bool) -> Path:
            if not finished:
                distil_lora(
                    inputs.pair.base,
                    (list(self.rollouts.train), inputs.train),
                    (list(self.rollouts.validation), inputs.validation),
                    rank=RANKS[name],
                    folder=folder,
                    config=config.distil,
                    seed=config.seed,
                    progress=stages.progress,
                )
            return folder

        return self.folder.branch(f"adapters/{name}", make, to_dict(config.distil), config.seed)

    def _arm_stage(self, name: str, make: Callable[[Path, bool], ArmResult]) -> ArmResult:
        config = self.stages.config
        return self.folder.branch(f"arms/{name}", make, _settings_of(name, config), config.seed)


_ROLLOUTS = (*RANKS, "few-shot", "handbook", "majority")

#: Which settings of the section ``hybrid`` an arm hangs on.
_HANGS_ON: Mapping[str, tuple[str, ...]] = {
    "rerank-only": ("rerank_among",),
    "speculative": ("speculative_tokens",),
    "fusion": ("fusion_weight",),
    "majority": ("majority_temperature",),
    "few-shot": ("shots",),
    "v1": ("v1_strengths", "v1_windows"),
}


def _settings_of(name: str, config: Any) -> dict[str, Any]:
    options = to_dict(config.hybrid)
    hangs_on = _HANGS_ON.get("v1" if name.startswith("v1") else name, ())
    learned = {"oracle-free": "policy", "lora": "distil", "lora-rank-1": "distil"}.get(name)
    return {
        "decoding": to_dict(config.decoding),
        **{option: options[option] for option in hangs_on},
        **({learned: to_dict(getattr(config, learned))} if learned else {}),
    }


def _published(config: SteeringConfig) -> SteeringConfig:
    """How version 2 is learned (2510.07364v4); its step of the vectors counts typical coordinates here."""
    return replace(config, hidden=512, lr_vectors=0.01, lr_strength=1e-3, epochs=10, patience=5, balance=True)

"""The stages of a run: each makes one typed object from those before it, in its own folder, and can be broken off."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probe._files import write_json
from probe.activations import SentenceActivations, harvest
from probe.models import Model
from probe.pipeline.config import RunConfig
from probe.pipeline.inputs import Inputs
from probe.problems import Problem
from probe.steering import (
    ComingReader,
    GateBatch,
    Mechanism,
    collect_gates,
    learn_reader,
    learn_vectors,
    load_mechanism,
    token_behaviours,
)
from probe.taxonomy import Taxonomy, fit_taxonomy
from probe.traces import Traces, generate_traces


@dataclass(frozen=True)
class Rollouts:
    """Traces of the thinking model on every split, and of the base model on the test split."""

    train: Traces
    validation: Traces
    base: Traces
    thinking: Traces


@dataclass(frozen=True)
class Vectors:
    """The vectors of every seed, the single vector of the first, and what tells the coming behaviour."""

    seeds: list[Mechanism]
    single: Mechanism
    reader: ComingReader


@dataclass(frozen=True)
class Stages:
    """The work of each stage; ``progress`` shows bars."""

    config: RunConfig
    inputs: Inputs
    progress: bool = False

    def traces(self, folder: Path, finished: bool) -> Rollouts:
        """Roll out the thinking model on all splits and the base model on the test split."""
        pair, inputs = self.inputs.pair, self.inputs

        def roll_out(name: str, model: Model, problems: Sequence[Problem]) -> Traces:
            return generate_traces(
                model,
                inputs.problem_set,
                problems,
                max_new_tokens=inputs.new_tokens,
                think_close=pair.config.think_close,
                batch_size=self.config.decoding.batch_size,
                folder=folder / name,
                progress=self.progress and not finished,
            )

        return Rollouts(
            train=roll_out("train", pair.thinking, inputs.train),
            validation=roll_out("validation", pair.thinking, inputs.validation),
            base=roll_out("base", pair.base, inputs.test),
            thinking=roll_out("thinking", pair.thinking, inputs.test),
        )

    def activations(self, rollouts: Rollouts, folder: Path, finished: bool) -> tuple[SentenceActivations, ...]:
        """Mean residual stream of every sentence of the thinking model, train and validation."""
        return tuple(
            SentenceActivations.load(folder / name)
            if finished
            else harvest(
                self.inputs.pair.thinking, traces, self.inputs.sites, folder=folder / name, progress=self.progress
            )
            for name, traces in (("train", rollouts.train), ("validation", rollouts.validation))
        )

    def taxonomy(self, acts: tuple[SentenceActivations, ...], folder: Path, finished: bool) -> Taxonomy:
        """Find the behaviours."""
        if finished:
            return Taxonomy.load(folder)
        train, validation = acts
        return fit_taxonomy(
            train,
            validation,
            self.config.taxonomy,
            sentence_type=self.inputs.problem_set.sentence_type,
            folder=folder,
            progress=self.progress,
        )

    def steering(
        self,
        rollouts: Rollouts,
        acts: tuple[SentenceActivations, ...],
        taxonomy: Taxonomy,
        folder: Path,
        finished: bool,
    ) -> Vectors:
        """Learn the reader, the vectors with every seed and the single vector; each is kept as soon as it is there."""
        seeds, base = self.config.steering.seeds, self.inputs.pair.base
        wanted = {f"seed-{seed}": (taxonomy.n_behaviours, seed) for seed in seeds} | {"single": (1, seeds[0])}
        missing = [] if finished else [name for name in wanted if not (folder / name / "history.json").exists()]
        if not (folder / "reader" / "reader.json").exists():
            traces = list(rollouts.train)
            learn_reader(self.inputs.pair, taxonomy, traces, self.inputs.train, acts[0], seed=seeds[0]).save(
                folder / "reader"
            )
        train, validation = self.gates(rollouts, taxonomy, acts) if missing else ([], [])
        for name in missing:
            n_behaviours, seed = wanted[name]
            learned = learn_vectors(
                base,
                train,
                validation,
                n_behaviours,
                self.inputs.layer,
                self.config.steering,
                seed=seed,
                progress=self.progress,
            )
            learned.vectors.save(folder / name)
            write_json(folder / name / "history.json", learned.history)
        made = {name: load_mechanism(folder / name).to(base.device) for name in wanted}
        reader = ComingReader.load(folder / "reader").to(self.inputs.pair.thinking.device)
        return Vectors([made[f"seed-{seed}"] for seed in seeds], made["single"], reader)

    def gates(
        self, rollouts: Rollouts, taxonomy: Taxonomy, acts: tuple[SentenceActivations, ...] | None
    ) -> tuple[list[GateBatch], list[GateBatch]]:
        """Where the models disagree on the thinking model's train and validation traces.

        Args:
            acts: gates are named by the sentence that they are in; None: by what the taxonomy reads off a single token.
        """
        inputs = self.inputs
        splits = ((rollouts.train, inputs.train), (rollouts.validation, inputs.validation))
        train, validation = (
            list(
                collect_gates(
                    inputs.pair,
                    taxonomy,
                    inputs.layer,
                    list(traces),
                    problems,
                    behaviours=None if acts is None else token_behaviours(taxonomy, list(traces), acts[i]),
                )
            )
            for i, (traces, problems) in enumerate(splits)
        )
        return train, validation

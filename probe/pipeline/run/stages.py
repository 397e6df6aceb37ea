"""The stages of a run: each makes one object from those before it, in a folder of its own, and can be resumed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

from probe.config import read_as
from probe.convergence import Check
from probe.engine import Shards
from probe.files import write_json
from probe.pipeline.run.config import RunConfig
from probe.pipeline.run.inputs import Inputs
from probe.pipeline.stages import Split, Splits, harvest_splits, problems_of, roll_out_splits, taxonomy_of
from probe.steering import (
    ComingReader,
    GateBatch,
    Mechanism,
    check_fits,
    keep_gates,
    learn_reader,
    learn_vectors,
    load_mechanism,
)
from probe.taxonomy import Taxonomy, fit_taxonomy
from probe.traces import Traces, trace_shards

Gates = tuple[Sequence[GateBatch], Sequence[GateBatch]]
"""Gates of the train traces and of the validation traces."""
GATES, GATES_BY_TOKEN = "gates", "gates-by-token"
"""Folders of a run that keep gates: those named by their sentence, and those named by their token."""
BELOW = "below"
"""The folder of a run that keeps the states below the steering layer until all arms are done; it may be removed."""
TRAINING = "training.json"
"""How the training of a part went. It is written last, so a folder that holds it is complete."""


@dataclass(frozen=True)
class RunTraces:
    """Traces of the thinking model on every split, and of the base model on the test split.

    Train and validation problems have one trace each. Test problems may have several samples, which follow each other.
    """

    train: Traces
    validation: Traces
    base: Traces
    thinking: Traces

    @property
    def of_test(self) -> dict[str, Traces]:
        """The traces of both models on the test split, by arm."""
        return {"base": self.base, "thinking": self.thinking}


@dataclass(frozen=True)
class Vectors:
    """The vectors of every seed, the single vector of the first seed, and the reader of the coming behaviour."""

    seeds: list[Mechanism]
    single: Mechanism
    reader: ComingReader

    @property
    def layer(self) -> int:
        """The steering layer."""
        return self.single.layer


@dataclass(frozen=True)
class Stages:
    """The work of each stage.

    Each method is called with the folder of its stage and whether the stage is finished; a finished stage is loaded.
    """

    config: RunConfig
    inputs: Inputs
    progress: bool = False

    def traces(self, folder: Path, finished: bool) -> RunTraces:
        """Roll out the thinking model on all splits and the base model on the test split; imported traces are read."""
        inputs = self.inputs
        read = {
            name: inputs.imported.traces(name, problems, folder / name)
            for name, problems in (("train", inputs.train), ("validation", inputs.validation))
            if inputs.imported is not None
        }
        made = roll_out_splits(
            self._splits,
            inputs.problem_set,
            folder=folder,
            finished=finished,
            progress=self.progress and not finished,
            config=self.config.servers,
            **self._limits,
        )
        return RunTraces(**read, **made)

    def trace_shards(self, folder: Path) -> dict[str, Shards]:
        """The shards of the traces of each split, which any process may make; traces of servers are not listed.

        Args:
            folder: the folder of the stage.
        """
        return {
            name: trace_shards(
                split.model,
                split.problems,
                sampling=split.sampling,
                samples=split.samples,
                folder=folder / name,
                **self._limits,
            )
            for name, split in self._splits.items()
            if not split.urls
        }

    @property
    def _splits(self) -> dict[str, Split]:
        inputs, sampling = self.inputs, self.inputs.sampling
        base, thinking = (
            partial(Split, model, sampling=how, urls=urls, setting=setting)
            for model, how, urls, setting in (
                (inputs.pair.base, sampling.base, self.config.base_url, "base_url"),
                (inputs.pair.thinking, sampling.thinking, self.config.thinking_url, "thinking_url"),
            )
        )
        # Train and validation problems have one trace each; test problems have one for each sample.
        learned = {"train": thinking(inputs.train), "validation": thinking(inputs.validation)}
        return {
            **(learned if inputs.imported is None else {}),
            "base": base(inputs.test, samples=sampling.number(sampling.base)),
            "thinking": thinking(inputs.test, samples=sampling.number(sampling.thinking)),
        }

    @property
    def _limits(self) -> dict[str, int]:
        return {
            "max_new_tokens": self.inputs.max_new_tokens,
            "seed": self.config.seed,
            "batch_size": self.config.decoding.batch_size,
        }

    def activations(self, rollouts: RunTraces, folder: Path, finished: bool) -> Splits:
        """Harvest the mean residual stream of every sentence of the thinking model, train and validation."""
        return harvest_splits(
            self.inputs.pair.thinking,
            rollouts.train,
            rollouts.validation,
            self.inputs.sites,
            folder=folder,
            finished=finished,
            progress=self.progress,
        )

    def taxonomy(self, acts: Splits, folder: Path, finished: bool) -> Taxonomy:
        """Learn the taxonomy."""
        if finished:
            return taxonomy_of(folder, acts[0])
        return fit_taxonomy(
            *acts,
            self.config.taxonomy,
            sentence_type=self.inputs.problem_set.sentence_type,
            folder=folder,
            progress=self.progress,
        )

    def steering(
        self,
        rollouts: RunTraces,
        acts: Splits,
        taxonomy: Taxonomy,
        folder: Path,
        finished: bool,
    ) -> Vectors:
        """Learn the reader, the vectors of every seed and the single vector; each is saved as soon as it is learned."""
        seeds, base, wanted = self.config.steering.seeds, self.inputs.pair.base, self._wanted(taxonomy)
        missing = [] if finished else self.vectors_left(taxonomy, folder)
        if not (folder / "reader" / "reader.json").exists():
            traces = rollouts.train
            asked = problems_of(traces, self.inputs.train)
            reader = learn_reader(self.inputs.pair, taxonomy, traces, asked, acts=acts[0], seed=seeds[0])
            reader.save(folder / "reader")
        if missing:
            gates = self.gates(rollouts, taxonomy, acts, folder.parent / GATES)
            for name in missing:
                self.learn(name, gates, taxonomy, folder)
        made = {name: load_mechanism(folder / name).to(base.device) for name in wanted}
        reader = ComingReader.load(folder / "reader").to(self.inputs.pair.thinking.device)
        for name, (n_behaviours, _) in wanted.items():
            layer = made["single"].layer if made["single"].layer in self.inputs.layers else self.inputs.layers[0]
            check_fits(made[name], folder / name, d_model=base.d_model, n_behaviours=n_behaviours, layer=layer)
        thinking, k = self.inputs.pair.thinking, taxonomy.n_behaviours
        check_fits(reader, folder / "reader", d_model=thinking.d_model, n_behaviours=k, layer=thinking.n_layers - 1)
        return Vectors([made[f"seed-{seed}"] for seed in seeds], made["single"], reader)

    def _wanted(self, taxonomy: Taxonomy) -> dict[str, tuple[int, int]]:
        """The number of vectors and the seed of everything that is learned, by name."""
        seeds = self.config.steering.seeds
        return {f"seed-{seed}": (taxonomy.n_behaviours, seed) for seed in seeds} | {"single": (1, seeds[0])}

    def vectors_left(self, taxonomy: Taxonomy, folder: Path) -> list[str]:
        """The names of the vectors that are still to be learned."""
        return [name for name in self._wanted(taxonomy) if not _learned(folder / name)]

    def learn(self, name: str, gates: Gates, taxonomy: Taxonomy, folder: Path) -> None:
        """Learn vectors of one name, and keep them.

        Args:
            name: of :meth:`vectors_left`.
            gates: from :meth:`gates`.
            taxonomy: the behaviours.
            folder: the folder of the stage.
        """
        n_behaviours, seed = self._wanted(taxonomy)[name]
        layer = self._layer(gates, taxonomy, folder)
        self._learn(gates, n_behaviours, layer, seed, folder / name, folder.parent / BELOW)

    def try_layer(self, layer: int, gates: Gates, taxonomy: Taxonomy, folder: Path) -> None:
        """Learn the vectors by which a steering layer is compared with others, unless they are kept."""
        if not _learned(folder / f"layer-{layer}"):
            seed = self.config.steering.seeds[0]
            self._learn(gates, taxonomy.n_behaviours, layer, seed, folder / f"layer-{layer}")

    def _layer(self, gates: Gates, taxonomy: Taxonomy, folder: Path) -> int:
        """Choose the steering layer: the only one, or the one whose vectors have the lowest validation loss."""
        layers = self.inputs.layers
        if len(layers) == 1:
            return layers[0]
        losses = {}
        for layer in layers:
            self.try_layer(layer, gates, taxonomy, folder)
            tried = folder / f"layer-{layer}"
            losses[layer] = min(check["loss"] for check in read_as(Training, tried / TRAINING)["checks"])
        best = min(losses, key=lambda layer: losses[layer])
        write_json(folder / "layers.json", {"chosen": best, "validation_loss": losses})
        return best

    def _learn(
        self, gates: Gates, n_behaviours: int, layer: int, seed: int, folder: Path, cache: Path | None = None
    ) -> None:
        learned = learn_vectors(
            self.inputs.pair.base,
            *gates,
            n_behaviours=n_behaviours,
            layer=layer,
            config=self.config.steering,
            seed=seed,
            folder=cache,
            progress=self.progress,
        )
        learned.vectors.save(folder)
        write_training(folder, learned.history, converged=learned.converged, steps=self.config.steering.steps)

    def gates(self, rollouts: RunTraces, taxonomy: Taxonomy, acts: Splits | None, folder: Path) -> Gates:
        """Collect the tokens of the thinking model's train and validation traces at which the models disagree.

        Args:
            taxonomy: names the behaviour at each gate.
            acts: if given, a gate has the behaviour of its sentence; if None, that of its single token.
            folder: keeps the gates, so that they are found once.
        """
        inputs = self.inputs
        train, validation = (
            keep_gates(
                folder / name,
                inputs.pair,
                taxonomy,
                traces,
                problems_of(traces, problems),
                acts=None if acts is None else acts[i],
            )
            for i, (name, traces, problems) in enumerate(
                (
                    ("train", rollouts.train, inputs.train),
                    ("validation", rollouts.validation, inputs.validation),
                )
            )
        )
        return train, validation


class Training(TypedDict):
    """What ``training.json`` holds."""

    converged: bool
    steps: int
    checks: list[Check]


def write_training(folder: Path, history: list[dict[str, float]], *, converged: bool, steps: int) -> None:
    """Write ``training.json`` beside what was trained.

    Args:
        history: the evaluations, each with its ``step`` and ``loss``.
        converged: whether the validation loss stopped falling before the maximum number of steps.
        steps: that maximum.
    """
    write_json(folder / TRAINING, {"converged": converged, "steps": steps, "checks": history})


def _learned(folder: Path) -> bool:
    return (folder / TRAINING).exists()

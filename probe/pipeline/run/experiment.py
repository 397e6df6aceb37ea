"""An opened run: the objects that its stages made, and the gates and the policy that several arms need."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from probe.config import to_dict
from probe.files import write_json
from probe.hybrid import ArmResult
from probe.pipeline.folder import RunFolder, without
from probe.pipeline.run.config import RunConfig
from probe.pipeline.run.inputs import Inputs, first_prompts_hash, prepare
from probe.pipeline.run.kept import recalled
from probe.pipeline.run.stages import GATES, Gates, RunTraces, Stages, Vectors, write_training
from probe.pipeline.stages import Splits
from probe.steering import BasePolicy, learn_policy, policy_data, residual_bits
from probe.taxonomy import Taxonomy

NOT_IN_KEY = ("hybrid", "policy", "distil", "shown", "workers", "curve")
"""Settings that may change between calls on one folder; each arm records those that its result depends on."""


_HOW = ("device", "decoding.batch_size")
"""Settings that only say how a run is made."""
_WHERE = ("pair", "base", "thinking", "problems")
"""Settings that say where the inputs are, which are known by their content."""


def run_folder(config: RunConfig, inputs: Inputs, out: Path, *, joined: bool = False) -> RunFolder:
    """The folder of a run, which is checked and not yet written.

    Raises:
        ProbeError: if it holds a run with other settings or inputs, or something else.
    """
    settings = without(to_dict(config), *NOT_IN_KEY, *_HOW, *_WHERE)
    hashes = inputs.hashes()

    def upgrade(before: dict[str, Any]) -> dict[str, Any]:
        """The first format: paths were part of the key, and prompts were hashed with them."""
        there = before.get("config")
        if not isinstance(there, dict):
            return before
        same = before.get("prompts") == first_prompts_hash(config, there)
        prompts = hashes["prompts"] if same else before.get("prompts")
        return {**before, "config": without(there, *_HOW, *_WHERE), "prompts": prompts}

    told = {"config": settings, **hashes}
    return RunFolder(out.expanduser(), told, upgrade=upgrade, joined=joined, later=("taxonomy",))


@dataclass
class Experiment:
    """A run whose stages before the arms are finished.

    Attributes:
        stages: the settings, the inputs and the work of each stage.
        folder: the run's folder.
        rollouts: traces of both models.
        acts: activations of the thinking model's train and validation traces.
        taxonomy: the behaviours.
        vectors: the vectors of the hybrid.
        done: results of the arms that were decoded or read so far.
    """

    stages: Stages
    folder: RunFolder
    rollouts: RunTraces
    acts: Splits
    taxonomy: Taxonomy
    vectors: Vectors
    done: dict[str, ArmResult] = field(default_factory=dict)

    @classmethod
    def of(cls, config: RunConfig, inputs: Inputs, folder: RunFolder, *, progress: bool = False) -> "Experiment":
        """Load the finished stages of a run and do the missing ones, up to the arms.

        Args:
            config: the settings of the run.
            inputs: from :func:`~probe.pipeline.run.inputs.prepare`.
            folder: from :func:`run_folder`.
            progress: show bars.

        Raises:
            ProbeError: if a stage was made with other settings.
        """
        stages = Stages(config, inputs, progress)
        rollouts = folder.stage("traces", stages.traces, to_dict(config.decoding), config.seed, how=("batch_size",))
        sites = {"sites": inputs.sites}
        acts = folder.stage("activations", lambda *at: stages.activations(rollouts, *at), sites, config.seed)
        return cls._learn(stages, folder, rollouts, acts)

    def with_traces(self, n: int) -> "Experiment":
        """Learn everything again from the first train traces; all other traces are shared.

        Args:
            n: number of train traces. The run's own number gives the run itself.
        """
        if n == len(self.inputs.train):
            return self
        config = replace(self.config, curve=(), sizes=replace(self.config.sizes, train=n))
        stages = replace(self.stages, config=config, inputs=replace(self.inputs, train=self.inputs.train[:n]))
        rollouts = replace(self.rollouts, train=self.rollouts.train[:n])
        folder = RunFolder(self.folder.path / "curve" / str(n), {"run": self.folder.key, "train": n})
        return self._learn(stages, folder, rollouts, (self.acts[0].first(n), self.acts[1]))

    @classmethod
    def _learn(cls, stages: Stages, folder: RunFolder, rollouts: RunTraces, acts: Splits) -> "Experiment":
        config, seed = stages.config, stages.config.seed
        taxonomy = folder.stage("taxonomy", lambda *at: stages.taxonomy(acts, *at), to_dict(config.taxonomy), seed)
        vectors = folder.stage(
            "steering", lambda *at: stages.steering(rollouts, acts, taxonomy, *at), to_dict(config.steering), seed
        )
        return cls(stages, folder, rollouts, acts, taxonomy, vectors)

    @classmethod
    def open(cls, out: str | Path, *, progress: bool = False, joined: bool = False) -> "Experiment":
        """Open the run in a folder.

        Args:
            out: the folder of the run.
            progress: show bars.
            joined: whether another process has locked the folder for this one.

        Raises:
            ProbeError: if the folder holds no run, or its models, prompts or problems have changed.
        """
        config, pair = recalled(out)
        inputs = prepare(config, pair)
        return cls.of(config, inputs, run_folder(config, inputs, Path(out), joined=joined), progress=progress)

    @property
    def config(self) -> RunConfig:
        """The settings of the run."""
        return self.stages.config

    @property
    def inputs(self) -> Inputs:
        """The pair, the problems of each split, and where the models are read and steered."""
        return self.stages.inputs

    @cached_property
    def gates(self) -> Gates:
        """Gates of the train and validation traces, each with the behaviour of its sentence."""
        return self.stages.gates(self.rollouts, self.taxonomy, self.acts, self.folder.path / GATES)

    @cached_property
    def policy(self) -> BasePolicy:
        """The policy that reads where to steer, and which behaviour, from the base model alone; learned if missing."""
        stages, base = self.stages, self.stages.inputs.pair.base
        config = stages.config

        def make(folder: Path, finished: bool) -> BasePolicy:
            if not finished:
                layers = config.policy.spread(base.n_layers)
                train, validation = (
                    policy_data(base, batches, layers, tokens=config.policy.tokens, seed=config.seed)
                    for batches in self.gates
                )
                learned = learn_policy(
                    train,
                    validation,
                    layers=layers,
                    n_behaviours=self.taxonomy.n_behaviours,
                    config=config.policy,
                    seed=config.seed,
                    progress=stages.progress,
                )
                learned.policy.save(folder)
                write_json(folder / "validation.json", residual_bits(learned.policy, validation))
                steps = config.policy.steps
                write_training(folder, learned.history, converged=learned.converged, steps=steps)
            return BasePolicy.load(folder).to(base.device)

        return self.folder.branch("policy", make, config.policy.key, config.seed)

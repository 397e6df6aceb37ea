"""An opened run: the objects that its stages made, and the gates and the policy that several arms need."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from probe.config import to_dict
from probe.files import write_json
from probe.hybrid import Arm, ArmResult
from probe.pipeline.folder import RunFolder, without
from probe.pipeline.run.config import RunConfig
from probe.pipeline.run.inputs import Inputs, prepare
from probe.pipeline.run.kept import recalled
from probe.pipeline.run.stages import GATES, Gates, RunTraces, Stages, Vectors, write_training
from probe.pipeline.stages import Splits
from probe.steering import BasePolicy, learn_policy, policy_data, residual_bits
from probe.taxonomy import Taxonomy

Made = TypeVar("Made")

NOT_IN_KEY = ("hybrid", "policy", "distil", "latent_seek", "shown", "engine", "curve", "look", "anyway")
"""Settings that may change between calls on one folder; each arm records those that its result depends on."""


_HOW = (
    *("device", "base_device", "thinking_device", "memory", "decoding.batch_size"),
    *("base_url", "thinking_url", "servers"),
)
"""Settings that only say how a run is made."""
_WHERE = ("pair", "base", "thinking", "problems", "traces")
"""Settings that say where the inputs are, which are known by their content."""


def run_folder(config: RunConfig, inputs: Inputs, out: Path, *, joined: bool = False) -> RunFolder:
    """The folder of a run, which is checked and not yet written.

    Raises:
        ProbeError: if it holds a run with other settings or inputs, or something else.
    """
    settings = without(to_dict(config), *NOT_IN_KEY, *_HOW, *_WHERE)
    told = {"config": settings, **inputs.hashes()}
    return RunFolder(out.expanduser(), told, joined=joined, later=("taxonomy",))


@dataclass
class Experiment:
    """A run, and the objects that its stages make.

    A stage is loaded when it is first asked for; what it lacks is made, after the stages before it.

    Attributes:
        stages: the settings, the inputs and the work of each stage.
        folder: the run's folder.
        whole: the run whose traces and activations are shared; None for a run that has its own.
        done: results of the arms that were decoded or read so far.
        chosen: the arms of which one setting was chosen or read so far.
    """

    stages: Stages
    folder: RunFolder
    whole: "Experiment | None" = None
    done: dict[str, ArmResult] = field(default_factory=dict)
    chosen: dict[str, Arm] = field(default_factory=dict)

    @classmethod
    def of(cls, config: RunConfig, inputs: Inputs, folder: RunFolder, *, progress: bool = False) -> "Experiment":
        """Make the run of these settings.

        Args:
            config: the settings of the run.
            inputs: from :func:`~probe.pipeline.run.inputs.prepare`.
            folder: from :func:`run_folder`.
            progress: show bars.
        """
        return cls(Stages(config, inputs, progress), folder)

    def with_traces(self, n: int) -> "Experiment":
        """The run that learns everything from the first train traces; all other traces are shared.

        Args:
            n: number of train traces. The run's own number gives the run itself.
        """
        if n == len(self.inputs.train):
            return self
        config = replace(self.config, curve=(), sizes=replace(self.config.sizes, train=n))
        stages = replace(self.stages, config=config, inputs=replace(self.inputs, train=self.inputs.train[:n]))
        _ = self.acts  # the stages that are shared
        folder = RunFolder(self.folder.path / "curve" / str(n), {"run": self.folder.key, "train": n})
        return Experiment(stages, folder, whole=self)

    @cached_property
    def rollouts(self) -> RunTraces:
        """Traces of both models."""
        if self.whole is not None:
            whole = self.whole.rollouts
            return replace(whole, train=whole.train[: self._n_train])
        decoding = to_dict(self.config.decoding)
        return self.folder.stage("traces", self.stages.traces, decoding, self.config.seed, how=("batch_size",))

    @property
    def _n_train(self) -> int:
        """The number of train traces. A problem may have several imported traces."""
        assert self.whole is not None
        wanted = {problem.id for problem in self.inputs.train}
        return sum(name in wanted for name in self.whole.rollouts.train.column("problem_id"))

    @cached_property
    def acts(self) -> Splits:
        """Activations of the thinking model's train and validation traces."""
        if self.whole is not None:
            return self.whole.acts[0].first(self._n_train), self.whole.acts[1]
        rollouts, sites = self.rollouts, {"sites": self.inputs.sites}
        return self.folder.stage(
            "activations", lambda *at: self.stages.activations(rollouts, *at), sites, self.config.seed
        )

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The behaviours."""
        acts, settings = self.acts, to_dict(self.config.taxonomy)
        return self.folder.stage("taxonomy", lambda *at: self.stages.taxonomy(acts, *at), settings, self.config.seed)

    @cached_property
    def vectors(self) -> Vectors:
        """The vectors of the hybrid, and the reader of the coming behaviour."""
        made, settings = (self.taxonomy, self.rollouts, self.acts), to_dict(self.config.steering)
        taxonomy, rollouts, acts = made
        return self.folder.stage(
            "steering", lambda *at: self.stages.steering(rollouts, acts, taxonomy, *at), settings, self.config.seed
        )

    def branch(
        self,
        name: str,
        make: Callable[[Path, bool], Made],
        config: Mapping[str, Any],
        seed: int,
        how: Sequence[str] = (),
    ) -> Made:
        """Make or load something that depends on all stages, such as an arm; see `RunFolder.branch`."""
        _ = self.vectors  # the last stage
        return self.folder.branch(name, make, config, seed, how)

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
        config = inputs.settled(config)
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

        return self.branch("policy", make, config.policy.key, config.seed)

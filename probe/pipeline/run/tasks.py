"""The work of a run as tasks that an engine may do elsewhere, and all arms of a run.

Whatever an engine has done lies in files. The process that began the run reads them, makes what is missing, and alone
writes the results; so a run may be begun with one engine and continued with another.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from probe.engine import SHARD, OpenEngine, Task, engine_of
from probe.hybrid import ARMS, ArmResult
from probe.models import PairConfig
from probe.pipeline.run.arms import SEED, arm_result, make_arm, make_shard, recipe
from probe.pipeline.run.config import RunConfig
from probe.pipeline.run.experiment import Experiment, run_folder
from probe.pipeline.run.inputs import Inputs, prepare


@dataclass(frozen=True)
class OpenRun:
    """Opens a run in a worker; called once in each, for all its tasks."""

    config: RunConfig
    pair: PairConfig
    out: Path

    def __call__(self) -> Experiment:
        inputs = prepare(self.config, self.pair)
        return Experiment.of(self.config, inputs, run_folder(self.config, inputs, self.out, joined=True))


def open_workers(experiment: Experiment) -> OpenEngine:
    """The workers of a run, which stay for all its tasks."""
    begin = OpenRun(experiment.config, experiment.inputs.pair.config, experiment.folder.path)
    return engine_of(experiment.config.engine).open(begin, experiment.folder.path)


def make_traces(experiment: Experiment, workers: OpenEngine) -> None:
    """Roll out both models on all splits."""
    if not experiment.folder.has("traces"):
        workers.run(_trace_tasks(experiment), name="traces", progress=experiment.stages.progress)
    _ = experiment.rollouts


def learn_vectors(experiment: Experiment, workers: OpenEngine) -> None:
    """Learn everything that the hybrid needs."""
    progress = experiment.stages.progress
    if not (experiment.folder.has("steering") or engine_of(experiment.config.engine).is_here):
        _ = experiment.gates  # which all vectors need
        if len(experiment.inputs.layers) > 1:
            tries = [Task(f"layer {layer}", partial(_try_layer, layer=layer)) for layer in experiment.inputs.layers]
            workers.run(tries, name="steering layers", progress=progress)
        left = experiment.stages.vectors_left(experiment.taxonomy, experiment.folder.path / "steering")
        tasks = [Task(f"vectors {name}", partial(_vectors, name=name)) for name in left]
        workers.run(tasks, name="vectors", progress=progress)
    _ = experiment.vectors


def run_arms(experiment: Experiment, workers: OpenEngine) -> Iterator[tuple[str, ArmResult]]:
    """Run every arm that the settings name, and the hybrid with the vectors of every further seed.

    Yields:
        The name and the result of each arm, the hybrid first. Arms that the folder already has are read.
    """
    names, progress = _names(experiment), experiment.stages.progress
    missing = [name for name in names if not experiment.folder.has(f"arms/{name}")]
    if "hybrid" in missing:  # controls are matched to it
        workers.run(arm_tasks(experiment, ["hybrid"]), name="hybrid", progress=progress)
    yield "hybrid", arm_result(experiment, "hybrid")
    rest = [name for name in missing if name != "hybrid"]
    if rest and not engine_of(experiment.config.engine).is_here:
        _ = experiment.gates  # in a run of an earlier version, which kept none, each worker would find them
    workers.run(arm_tasks(experiment, rest), name="arms", progress=progress)
    for name in names:
        if name != "hybrid":
            yield name, arm_result(experiment, name)


def check_arms(experiment: Experiment) -> None:
    """Refuse an arm that cannot be made on this run, before any is decoded.

    Raises:
        ProbeError: for the first such arm.
    """
    for name in _names(experiment):
        check = recipe(name).check
        if check is not None and not experiment.folder.has(f"arms/{name}"):
            check(experiment, name)


def arm_tasks(experiment: Experiment, names: Sequence[str]) -> list[Task]:
    """The tasks of arms: what they need is learned first, then their shards are decoded.

    Args:
        names: arms that the folder does not have.
    """
    inputs = experiment.inputs
    whole, learned, decoded = [], {}, []
    for name in names:
        made = recipe(name)
        if made.written is not None:  # adapters and samples, which take longest, begin
            whole.append(Task(name, partial(_whole, name=name)))
            continue
        group = f"what {made.shares or name} needs"
        if group not in learned or not made.after:  # an arm that needs another would decode all of that in one worker
            learned[group] = Task(group, partial(_learn, name=name))
        needed = [arm for arm in made.after if arm in names]
        before = tuple(f"{arm}, shard {number}" for arm in needed for number in _shards(inputs, arm))
        for number in _shards(inputs, name):
            task = partial(_decode, name=name, number=number)
            decoded.append(Task(f"{name}, shard {number}", task, (group, *before)))
    return [*whole, *learned.values(), *decoded]


def _shards(inputs: Inputs, name: str) -> range:
    """The shards of an arm that is decoded token by token."""
    return range(-(-len(inputs.test) * recipe(name).samples(inputs.sampling) // SHARD))


def _names(experiment: Experiment) -> list[str]:
    """The arms that the settings name, those that the folder has, and a hybrid for each further seed."""
    kept = [name for name in ARMS if experiment.folder.has(f"arms/{name}")]
    seeds = [f"{SEED}{seed}" for seed in experiment.config.steering.seeds[1:]]
    return list(dict.fromkeys([*experiment.config.hybrid.names, *kept, *seeds]))


def _trace_tasks(experiment: Experiment) -> list[Task]:
    shards = experiment.stages.trace_shards(experiment.folder.path / "traces")
    return [
        Task(f"traces of {split}, shard {number}", partial(_trace, split=split, number=number))
        for split, each in shards.items()
        for number in each.missing()
    ]


def _trace(experiment: Experiment, split: str, number: int) -> None:
    shards = experiment.stages.trace_shards(experiment.folder.path / "traces")[split]
    shards.make(number, engine_of(experiment.config.engine).kind)


def _try_layer(experiment: Experiment, layer: int) -> None:
    folder = experiment.folder.path / "steering"
    experiment.stages.try_layer(layer, experiment.gates, experiment.taxonomy, folder)


def _vectors(experiment: Experiment, name: str) -> None:
    folder = experiment.folder.path / "steering"
    if name in experiment.stages.vectors_left(experiment.taxonomy, folder):
        experiment.stages.learn(name, experiment.gates, experiment.taxonomy, folder)


def _whole(experiment: Experiment, name: str) -> None:
    arm_result(experiment, name)


def _learn(experiment: Experiment, name: str) -> None:
    make_arm(experiment, name)


def _decode(experiment: Experiment, name: str, number: int) -> None:
    make_shard(experiment, name, number, engine_of(experiment.config.engine).kind)

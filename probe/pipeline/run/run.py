"""``probe run``: pair and problems → traces → sentence activations → taxonomy → vectors → arms → report."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from probe.config import read_as
from probe.files import write_json
from probe.pipeline.cut import warn_cut
from probe.pipeline.look.look import look_first
from probe.pipeline.plan.room import check_room
from probe.pipeline.prompts import begin
from probe.pipeline.run import told
from probe.pipeline.run.config import RunConfig
from probe.pipeline.run.curve import learning_curve
from probe.pipeline.run.effects import effects
from probe.pipeline.run.experiment import Experiment, run_folder
from probe.pipeline.run.finished import Finished
from probe.pipeline.run.inputs import Inputs, prepare
from probe.pipeline.run.kept import here, keep_inputs, keep_traces, recalled, with_arms
from probe.pipeline.run.results import behaviours, graded, observed, results, shown
from probe.pipeline.run.stages import BELOW
from probe.pipeline.run.tasks import check_arms, learn_vectors, make_traces, open_workers, run_arms
from probe.pipeline.run.told import Tell
from probe.progress import say
from probe.reports import write_report


def run(config: RunConfig, out: str | Path, *, progress: bool = False, tell: Tell | None = None) -> dict[str, Any]:
    """Run the whole experiment.

    Args:
        config: see :class:`~probe.RunConfig`.
        out: the folder of the run. A run with the same settings that is in it resumes.
        progress: show bars.
        tell: receives a sentence for each result as soon as it is known; None writes it on stderr if ``progress`` is
            set.

    Returns:
        What ``results.json`` holds. ``report.html`` is beside it.

    Raises:
        ProbeError: for settings that cannot work, or a run that does not fit into memory, before any model runs (for an
            arm that depends on traces: before any arm runs); if a verdict of the look stops the run; or if another
            process writes into the folder.
    """
    out, config = Path(out).expanduser(), here(config)
    check_room(config, out)
    return _run(config, prepare(config), out, progress=progress, tell=tell)


def add_arms(
    out: str | Path, arms: Sequence[str], *, engine: str | None = None, progress: bool = False
) -> dict[str, Any]:
    """Add arms or recipes to a run and write its results again.

    Args:
        out: the folder of the run.
        arms: names of arms and recipes.
        engine: who does the work, as in :class:`~probe.RunConfig`; None for the engine of the run.
        progress: show bars.

    Raises:
        ProbeError: if the folder holds no run, or an arm is unknown or cannot be made on this run; nothing is written.
    """
    config, pair = recalled(out)
    config = replace(with_arms(config, arms), engine=engine or config.engine)
    check_room(config, Path(out).expanduser(), pair)
    return _run(config, prepare(config, pair), Path(out).expanduser(), progress=progress)


def _run(config: RunConfig, inputs: Inputs, out: Path, *, progress: bool, tell: Tell | None = None) -> dict[str, Any]:
    tell = tell or (say if progress else lambda _: None)
    config = inputs.settled(config)
    with run_folder(config, inputs, out) as folder:
        asked = {"base": inputs.pair.base, "thinking": inputs.pair.thinking}
        sampling = {"base": inputs.sampling.base, "thinking": inputs.sampling.thinking}
        question = inputs.train[0].question
        prompts = begin(out, asked, question, sampling, remarks=inputs.remarks, progress=progress)
        looked = look_first(config, inputs, prompts, folder, progress=progress)
        experiment = Experiment.of(config, inputs, folder, progress=progress)
        finished = Finished(experiment, {})
        with open_workers(experiment) as workers:
            make_traces(experiment, workers)
            tell(told.both_models(finished))
            tell(told.behaviours(experiment))
            learn_vectors(experiment, workers)
            tell(told.vectors(experiment))
            keep_traces(out / "traces", vars(experiment.rollouts))
            check_arms(experiment)
            keep_inputs(config, inputs.pair.config, out)
            for name, arm in run_arms(experiment, workers):
                finished.arms[name] = arm
                tell(told.arm(finished, name))
        return _written(finished, {"prompts": prompts, "look": looked}, out)


def _written(finished: Finished, before: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write the results.

    Args:
        before: parts of ``results.json`` that were made before the first stage.
    """
    experiment, config = finished.experiment, finished.experiment.config
    shutil.rmtree(out / BELOW, ignore_errors=True)
    found = results(finished) | before | {"effects": effects(experiment)}
    found["effects"] |= observed(finished)
    if "oracle-free" in finished.arms:
        found["oracle"]["given_base"] = read_as(dict[str, Any], out / "policy" / "validation.json")
    if config.curve:
        found["curve"] = learning_curve(experiment)
    traces = {**experiment.rollouts.of_test, **{name: arm.traces for name, arm in finished.arms.items()}}
    found["cut"] = warn_cut(traces, experiment.inputs.max_new_tokens, progress=experiment.stages.progress)
    write_json(out / "behaviours.json", behaviours(finished))
    write_json(out / "graded.json", graded(finished))
    write_json(out / "shown.json", shown(finished, config.shown), indent=None)
    write_json(out / "results.json", found)
    write_report(out)
    return found

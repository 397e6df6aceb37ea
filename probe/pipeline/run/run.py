"""``probe run``: pair and problems → traces → sentence activations → taxonomy → vectors → arms → report."""

from pathlib import Path

from probe.config import to_dict
from probe.files import read_json, write_json
from probe.pipeline.folder import RunFolder
from probe.pipeline.run.config import RunConfig
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.run.inputs import prepare
from probe.pipeline.run.results import behaviours, graded, observed, results, shown
from probe.pipeline.run.stages import Stages
from probe.reports import write_report

#: Sections and settings that a run may change: arms come and go, each with its own settings on record.
NOT_IN_KEY = ("hybrid", "policy", "distil", "shown", "workers")


def run(config: RunConfig, out: Path, *, progress: bool = False) -> dict:
    """Run the whole experiment.

    Args:
        config: see :class:`~probe.pipeline.run.config.RunConfig`.
        out: the run's folder. If it holds a run with the same settings, that run goes on.
        progress: show bars.

    Returns:
        What ``results.json`` holds. ``report.html`` lies beside it.

    Raises:
        ProbeError: for anything the user can mend; before any model runs.
    """
    experiment = experiment_of(config, out, progress=progress)
    write_json(out / "config.json", to_dict(config))
    arms = experiment.run()
    inputs, rollouts, taxonomy, vectors = (
        experiment.stages.inputs,
        experiment.rollouts,
        experiment.taxonomy,
        experiment.vectors,
    )
    found = results(experiment.stages, rollouts, taxonomy, vectors, arms) | {"effects": experiment.effects()}
    found["effects"] |= observed(inputs, rollouts, arms)
    if "oracle-free" in arms:
        found["oracle"]["given_base"] = read_json(out / "policy" / "validation.json")
    cards = behaviours(taxonomy, vectors, arms["hybrid"], experiment.acts[1], inputs.problem_set)
    write_json(out / "behaviours.json", cards)
    write_json(out / "graded.json", graded(inputs, rollouts, arms))
    write_json(out / "shown.json", shown(inputs, rollouts, arms, config.shown))
    write_json(out / "results.json", found)
    write_report(out)
    return found


def experiment_of(config: RunConfig, out: Path, *, progress: bool = False) -> Experiment:
    """Everything up to the arms; what is there is read, what is missing is made."""
    inputs = prepare(config)
    stages = Stages(config, inputs, progress)
    settings = to_dict(config)
    for own in NOT_IN_KEY:
        settings.pop(own)
    folder = RunFolder(out, {"config": settings, **inputs.hashes()})
    seed, decoding = config.seed, to_dict(config.decoding)
    rollouts = folder.stage("traces", stages.traces, decoding, seed)
    acts = folder.stage("activations", lambda *at: stages.activations(rollouts, *at), {"sites": inputs.sites}, seed)
    taxonomy = folder.stage("taxonomy", lambda *at: stages.taxonomy(acts, *at), to_dict(config.taxonomy), seed)
    vectors = folder.stage(
        "steering", lambda *at: stages.steering(rollouts, acts, taxonomy, *at), to_dict(config.steering), seed
    )
    return Experiment(stages, folder, rollouts, acts, taxonomy, vectors)

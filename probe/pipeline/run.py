"""``probe run``: pair and problems → traces → sentence activations → taxonomy → vectors → arms → report."""

from pathlib import Path

from probe._config import to_dict
from probe._files import write_json
from probe.pipeline.config import RunConfig
from probe.pipeline.experiment import Experiment
from probe.pipeline.folder import RunFolder
from probe.pipeline.inputs import prepare
from probe.pipeline.results import behaviours, observed, results, shown
from probe.pipeline.stages import Stages
from probe.reports import write_report


def run(config: RunConfig, out: Path, *, progress: bool = False) -> dict:
    """Run the whole experiment.

    Args:
        config: see :class:`~probe.pipeline.config.RunConfig`.
        out: the run's folder. If it holds a run with the same settings, that run goes on.
        progress: show bars.

    Returns:
        What ``results.json`` holds. ``report.html`` lies beside it.

    Raises:
        ProbeError: for anything the user can mend; before any model runs.
    """
    inputs = prepare(config)
    stages = Stages(config, inputs, progress)
    settings = to_dict(config)
    for own in ("hybrid", "policy", "distil", "shown"):  # of arms, which come and go, and of what is shown
        settings.pop(own)
    folder = RunFolder(out, {"config": settings, **inputs.hashes()})
    seed, decoding = config.seed, to_dict(config.decoding)

    rollouts = folder.stage("traces", stages.traces, decoding, seed)
    acts = folder.stage("activations", lambda *at: stages.activations(rollouts, *at), {"sites": inputs.sites}, seed)
    taxonomy = folder.stage("taxonomy", lambda *at: stages.taxonomy(acts, *at), to_dict(config.taxonomy), seed)
    vectors = folder.stage(
        "steering", lambda *at: stages.steering(rollouts, acts, taxonomy, *at), to_dict(config.steering), seed
    )
    experiment = Experiment(stages, folder, rollouts, acts, taxonomy, vectors)
    arms = experiment.run()

    found = results(stages, rollouts, taxonomy, vectors, arms) | {"effects": experiment.effects()}
    found["effects"] |= observed(inputs, rollouts, arms)
    write_json(out / "behaviours.json", behaviours(taxonomy, vectors, arms["hybrid"], acts[1], inputs.problem_set))
    write_json(out / "shown.json", shown(inputs, rollouts, arms, config.shown))
    write_json(out / "results.json", found)
    write_report(out)
    return found

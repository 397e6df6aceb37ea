"""``probe run``: pair and problems → traces → sentence activations → taxonomy → vectors → arms → report."""

from pathlib import Path
from typing import Any

from probe.config import read_as, to_dict
from probe.files import write_json
from probe.pipeline.run.config import RunConfig
from probe.pipeline.run.curve import learning_curve
from probe.pipeline.run.effects import effects
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.run.results import Finished, behaviours, graded, observed, results, shown
from probe.pipeline.run.workers import run_arms
from probe.reports import write_report


def run(config: RunConfig, out: str | Path, *, progress: bool = False) -> dict[str, Any]:
    """Run the whole experiment.

    Args:
        config: see :class:`~probe.RunConfig`.
        out: the folder of the run. A run with the same settings that is in it resumes.
        progress: show bars.

    Returns:
        What ``results.json`` holds. ``report.html`` is beside it.

    Raises:
        ProbeError: for settings that cannot work; before any model runs.
    """
    out = Path(out)
    experiment = Experiment.open(config, out, progress=progress)
    write_json(out / "config.json", to_dict(config))
    finished = Finished(experiment, run_arms(experiment))
    found = results(finished) | {"effects": effects(experiment)}
    found["effects"] |= observed(finished)
    if "oracle-free" in finished.arms:
        found["oracle"]["given_base"] = read_as(dict[str, Any], out / "policy" / "validation.json")
    if config.curve:
        found["curve"] = learning_curve(experiment)
    write_json(out / "behaviours.json", behaviours(finished))
    write_json(out / "graded.json", graded(finished))
    write_json(out / "shown.json", shown(finished, config.shown))
    write_json(out / "results.json", found)
    write_report(out)
    return found

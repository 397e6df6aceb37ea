"""Exports the traces in a folder: imported traces, or the traces of a run."""

from pathlib import Path

from probe.errors import ProbeError
from probe.pipeline.run.experiment import Experiment
from probe.problems import ProblemSet
from probe.traces import ImportedTraces, Traces


def check_export(folder: Path, out: Path) -> None:
    """Check that an export can be made, before anything is loaded.

    Raises:
        ProbeError: if the folder holds no traces, or the folder of the export is not empty.
    """
    folder, out = folder.expanduser(), out.expanduser()
    if not any((folder / name).is_file() for name in ("import.json", "config.json")):
        raise ProbeError(f"{folder} holds neither imported traces nor a run; name a folder that holds one of them")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ProbeError(f"--out {out} is not an empty folder; name another one")


def export_traces(folder: str | Path, out: str | Path, *, license: str = "unknown") -> Path:
    """Write the traces in a folder as a data set for the hub.

    Args:
        folder: imported traces, or a run; of a run, the thinking model's traces on all splits are exported.
        out: a folder that is empty or does not exist.
        license: the licence, by its name on the hub.

    Returns:
        The folder of the data set.

    Raises:
        ProbeError: as :func:`check_export`.
    """
    folder, out = Path(folder).expanduser(), Path(out).expanduser()
    check_export(folder, out)
    command = {"made by": f"`probe traces export {folder.name}`"}
    if (folder / "import.json").is_file():
        imported = ImportedTraces(folder)
        told = {"source": f"{imported.about['source']} ({imported.about['shape']})", **command}
        return imported.traces.export(out, imported.problem_set, license=license, about=told)
    experiment = Experiment.open(folder)
    rollouts, inputs = experiment.rollouts, experiment.inputs
    traces = [*rollouts.train, *rollouts.validation, *rollouts.thinking]
    problems = ProblemSet(
        inputs.problem_set.name,
        inputs.problem_set.grader,
        {"train": tuple(inputs.train), "validation": tuple(inputs.validation), "test": tuple(inputs.test)},
        verifier=inputs.problem_set.verifier,
    )
    told = {
        "pair": inputs.pair.name,
        "sampling": str(inputs.sampling.thinking),
        "max_new_tokens": str(inputs.max_new_tokens),
        "prompt": f"`{inputs.pair.thinking.config.prompt}`".replace("\n", "\\n"),
        **command,
    }
    every = Traces(inputs.pair.thinking.name, inputs.problem_set.name, traces)
    return every.export(out, problems, license=license, about=told)

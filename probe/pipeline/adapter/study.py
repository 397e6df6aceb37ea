"""``probe adapter study``: trains and measures objectives and controls on the same texts, with several seeds each."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.adapters import (
    MEASURES,
    RANDOM,
    EvaluationData,
    Objective,
    Row,
    launched_processes,
    load_sae,
    measure,
    random_like,
    reach,
    summary,
    tune,
)
from probe.config import from_dict, read_as, to_dict
from probe.errors import ProbeError
from probe.files import located, read_json, write_json
from probe.pipeline.adapter.inputs import AdapterInputs, fitting, key_settings, prepare_adapter
from probe.pipeline.adapter.sae import make_sae
from probe.pipeline.adapter.study_config import StudyConfig
from probe.pipeline.folder import RunFolder
from probe.pipeline.prompts import begin
from probe.progress import progress_bar
from probe.reports import write_study

if TYPE_CHECKING:
    from sae_lens import SAE

_MEASURED = "measured.json"


@dataclass(frozen=True)
class _Study:
    """What every adapter of a study is trained and measured with."""

    config: StudyConfig
    inputs: AdapterInputs
    sae: "SAE[Any]"
    data: EvaluationData
    progress: bool

    def cell(self, row: Row, seed: int, at: Path) -> Path:
        """Train and measure one adapter."""
        model, settings, adapter = self.inputs.model, self.config.adapter, at / "adapter"
        objective = None
        if row.objective == RANDOM:
            first = self.config.rows[0]
            like = at.parents[1] / first.replace(":", "-") / str(seed) / "adapter"
            if not like.exists():
                raise ProbeError(f"{RANDOM} has the norms of {first}, which was not trained: put {first} before it")
            random_like(like, adapter, seed)
        else:
            objective = Objective(
                row.objective,
                self.sae if row.inserts or row.needs_latents else None,
                row.insert,
                through=row.through,
                latents=settings.latents if row.needs_latents else (),
                value=settings.value,
                source=self.inputs.source if row.objective in ("source-distil", "feature-match") else None,
                match=settings.match,
                seed=seed,
            )
            tune(
                model,
                self.inputs.train,
                self.inputs.validation,
                objective,
                folder=adapter,
                plan=settings.plan,
                config=replace(settings.tune, seed=seed),
                progress=self.progress,
            )
        write_json(at / _MEASURED, measure(model, adapter, self.data, objective, progress=self.progress))
        return at


def study(config: StudyConfig, out: str | Path, *, progress: bool = False) -> dict[str, Any]:
    """Train and measure every row with every seed; finished adapters are not repeated, and rows and seeds can be added.

    Args:
        out: the folder that is written.
        progress: show bars.

    Returns:
        What ``study.json`` holds: ``sae`` (site, size and quality), ``rows`` (for each the measures with intervals, the
        difference from its control, and the cost of one adapter), and what they were measured on.

    Raises:
        ProbeError: for invalid settings or inputs, before the first step.
    """
    if launched_processes() > 1:
        raise ProbeError("a study trains its adapters in one process: start it without torchrun")
    inputs = prepare_adapter(config.adapter)
    config = from_dict(StudyConfig, located(to_dict(config), Path.cwd()))
    rows = [Row.parse(name) for name in config.rows]
    for row in rows:
        if row.objective == "source-distil" and inputs.source is None:
            raise ProbeError("source-distil learns from another model: name a run, or adapter.source")
        if row.needs_latents and not config.adapter.latents:
            raise ProbeError(f"{row.name} needs latents: name some in adapter.latents, and their SAE in adapter.sae")
    with _folder(config, inputs, Path(out).expanduser()) as folder:
        return _study(config, inputs, rows, folder, progress=progress)


def _folder(config: StudyConfig, inputs: AdapterInputs, out: Path) -> RunFolder:
    """The folder of a study, which is checked and not yet written."""
    told = {"adapter": key_settings(config.adapter), "sae": to_dict(config.sae)}
    return RunFolder(out, {"study": told, **inputs.hashes()})


def _study(
    config: StudyConfig, inputs: AdapterInputs, rows: list[Row], folder: RunFolder, *, progress: bool
) -> dict[str, Any]:
    """Train and measure in a folder that is locked."""
    if inputs.learning is not None:
        begin(folder.path, {"base": inputs.model}, inputs.learning.problems[0].question, progress=progress)
    sae = _the_sae(config, inputs, folder, progress)
    questions, model = inputs.questions, inputs.model
    data = EvaluationData(inputs.test, inputs.general, None if questions is None else partial(questions.solved, model))
    whole = _Study(config, inputs, sae, data, progress)
    found: dict[str, list[dict[str, list[float]]]] = {row.name: [] for row in rows}
    about: dict[str, dict[str, Any]] = {}
    cells = [(row, seed) for row in rows for seed in config.seeds]
    for row, seed in progress_bar(cells, desc="study", unit="adapter", show=progress):
        # The key of a cell is the study's settings and these.
        cell = folder.branch(
            f"{row.name.replace(':', '-')}/{seed}",
            lambda at, finished, row=row, seed=seed: at if finished else whole.cell(row, seed, at),
            {"first": rows[0].name} if row.name == RANDOM else {},
            seed,
        )
        found[row.name].append(read_as(dict[str, list[float]], cell / _MEASURED))
        told = _about(inputs, cell)
        first = about.setdefault(row.name, told)
        first["converged"] = first["converged"] and told["converged"]  # of all seeds
    table = summary(found, {row.name: row.control for row in rows if row.control is not None})
    result = {
        "model": model.name,
        "seeds": list(config.seeds),
        "texts": {"train": len(inputs.train), "like": len(data.like), "general": len(data.general)},
        "problems": 0 if questions is None else len(questions.problems),
        "measures": dict(MEASURES),
        "sae": read_json(folder.path / "sae" / "quality.json"),
        "rows": {name: {**table[name], **about[name]} for name in table},
    }
    write_json(folder.path / "study.json", result)
    result = read_json(folder.path / "study.json")
    write_study(result, folder.path / "report.html")
    return result


def _the_sae(config: StudyConfig, inputs: AdapterInputs, folder: RunFolder, progress: bool) -> "SAE[Any]":
    given = (
        inputs.sae if config.adapter.sae is not None else None
    )  # a taxonomy's few latents cannot reconstruct a state

    def make(at: Path, finished: bool) -> "SAE[Any]":
        if not finished:
            make_sae(inputs, config.sae, at, given, seed=config.seeds[0], progress=progress)
        return fitting(load_sae(at / "sae"), inputs.model)

    return folder.stage("sae", make, to_dict(config.sae), config.seeds[0])


def _about(inputs: AdapterInputs, cell: Path) -> dict[str, Any]:
    """Reach, history and cost of an adapter."""
    history = cell / "adapter" / "history.json"
    card = read_as(dict[str, Any], cell / "adapter" / "probe.json") if history.exists() else {}
    return {
        "reach": reach(inputs.model, cell / "adapter"),
        "history": read_json(history) if history.exists() else [],
        "cost": card.get("cost", {}),
        "converged": card.get("converged", True),
    }

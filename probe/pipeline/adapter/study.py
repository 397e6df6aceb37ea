"""``probe adapter study``: objectives and controls on the same texts, with several seeds each, and their table."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from probe.adapters import MEASURES, RANDOM, Held, Objective, Row, load_sae, measure, random_like, reach, summary, tune
from probe.config import to_dict
from probe.errors import ProbeError
from probe.files import read_json, write_json
from probe.pipeline.adapter.inputs import AdapterInputs, fitting, prepare_adapter
from probe.pipeline.adapter.sae import make_sae
from probe.pipeline.adapter.study_config import StudyConfig
from probe.pipeline.folder import RunFolder
from probe.reports import write_study

if TYPE_CHECKING:
    from sae_lens import SAE

_MEASURED = "measured.json"


def study(config: StudyConfig, out: Path, *, progress: bool = False) -> dict[str, Any]:
    """Train and measure every row with every seed; what is there is not done again. Rows and seeds may be added later.

    Returns:
        What ``study.json`` holds: ``sae`` (its site, size and quality), ``rows`` (of each the measures with intervals,
        the difference from its control, what one adapter cost), and what they were measured on.

    Raises:
        ProbeError: for anything the user can mend, before the first step.
    """
    inputs = prepare_adapter(config.adapter)
    rows = [Row.parse(name) for name in config.rows]
    for row in rows:
        if row.objective == "source-distil" and inputs.source is None:
            raise ProbeError("source-distil learns from another model: name a run, or adapter.source")
        if row.needs_latents and not config.adapter.latents:
            raise ProbeError(f"{row.name} needs latents: name some in adapter.latents, of an SAE in adapter.sae")
    fixed = to_dict(config)
    del fixed["rows"], fixed["seeds"]
    folder = RunFolder(out, {"study": fixed})
    sae = _the_sae(config, inputs, folder, progress)
    questions, model = inputs.questions, inputs.model
    held = Held(inputs.test, inputs.general, None if questions is None else partial(questions.solved, model))
    found: dict[str, list[dict[str, list[float]]]] = {row.name: [] for row in rows}
    about: dict[str, dict[str, Any]] = {}
    cells = [(row, seed) for row in rows for seed in config.seeds]
    for row, seed in tqdm(cells, desc="study", unit="adapter", disable=not progress):
        # What a cell is made with and of: the settings of the study, and these.
        cell = folder.branch(
            f"{row.name.replace(':', '-')}/{seed}",
            lambda at, finished, row=row, seed=seed: (
                at if finished else _cell(config, inputs, sae, rows[0], row, seed, at, held, progress)
            ),
            {"first": rows[0].name} if row.name == RANDOM else {},
            seed,
        )
        found[row.name].append(read_json(cell / _MEASURED))
        about.setdefault(row.name, _about(inputs, cell))
    table = summary(found, {row.name: row.control for row in rows if row.control is not None})
    result = {
        "model": model.name,
        "seeds": list(config.seeds),
        "texts": {"train": len(inputs.train), "like": len(held.like), "general": len(held.general)},
        "problems": 0 if questions is None else len(questions.problems),
        "measures": dict(MEASURES),
        "sae": read_json(folder.path / "sae" / "quality.json"),
        "rows": {name: {**table[name], **about[name]} for name in table},
    }
    write_json(out / "study.json", result)
    result = read_json(out / "study.json")
    write_study(result, out / "report.html")
    return result


def _the_sae(config: StudyConfig, inputs: AdapterInputs, folder: RunFolder, progress: bool) -> "SAE[Any]":
    given = inputs.sae if config.adapter.sae is not None else None  # a taxonomy's few latents are no stand-in

    def make(at: Path, finished: bool) -> "SAE[Any]":
        if not finished:
            make_sae(inputs, config.sae, at, given, seed=config.seeds[0], progress=progress)
        return fitting(load_sae(at / "sae"), inputs.model)

    return folder.stage("sae", make, to_dict(config.sae), config.seeds[0])


def _cell(
    config: StudyConfig,
    inputs: AdapterInputs,
    sae: "SAE[Any]",
    first: Row,
    row: Row,
    seed: int,
    at: Path,
    held: Held,
    progress: bool,
) -> Path:
    """One adapter, trained and measured."""
    model, adapter = inputs.model, at / "adapter"
    if row.objective == RANDOM:
        like = at.parents[1] / first.name.replace(":", "-") / str(seed) / "adapter"
        if not like.exists():
            raise ProbeError(f"{RANDOM} is drawn as large as {first.name} is: put it after it in rows")
        random_like(like, adapter, seed)
        objective = None
    else:
        objective = Objective(
            row.objective,
            sae if row.inserts or row.needs_latents else None,
            row.insert,
            row.through,
            config.adapter.latents if row.needs_latents else (),
            config.adapter.value,
            inputs.source if row.objective in ("source-distil", "feature-match") else None,
            config.adapter.match,
            seed,
        )
        settings = replace(config.adapter.tune, seed=seed)
        texts = (inputs.train, inputs.validation)
        tune(model, *texts, objective, adapter, config.adapter.plan, settings, progress=progress)
    write_json(at / _MEASURED, measure(model, adapter, held, objective, progress=progress))
    return at


def _about(inputs: AdapterInputs, cell: Path) -> dict[str, Any]:
    """Of the first seed's adapter: how large it is, and what it cost."""
    history = cell / "adapter" / "history.json"
    return {
        "reach": reach(inputs.model, cell / "adapter"),
        "history": read_json(history) if history.exists() else [],
        "cost": read_json(cell / "adapter" / "probe.json")["cost"] if history.exists() else {},
    }

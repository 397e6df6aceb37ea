"""Compares objectives with their controls: same texts, steps and seeds, measured on test texts.

A gain that noise of the same size also produces is not attributable to the SAE. Therefore every row is compared with
its control, paired by text and seed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save_file

from probe.adapters.exports.attach import attached, switched_off
from probe.adapters.exports.lora import WEIGHTS, lora_tensors
from probe.adapters.training.objective import Objective
from probe.adapters.training.packing import Example
from probe.adapters.verification.passes import TextPasses
from probe.files import read_json, write_json
from probe.models import Model, seeded
from probe.statistics import mean_interval

#: The measures of an adapter.
MEASURES = MappingProxyType(
    {
        "inserted": "KL(base ‖ base with what is inserted), nats a token",
        "adapted": "KL(base ‖ the same and the adapter)",
        "deployed": "KL(base ‖ adapter alone)",
        "ce": "cross-entropy of texts like those trained on, change",
        "general": "cross-entropy of other texts, change",
        "solved": "share of problems solved, change",
    }
)


@dataclass(frozen=True, repr=False)
class EvaluationData:
    """What adapters are measured on.

    Attributes:
        like: test texts of the kind that adapters were trained on.
        general: texts of another kind.
        solved: rolls the model out in its current state and gives 1 for each problem that it solves and 0 for others;
            None without problems.
    """

    like: Sequence[Example]
    general: Sequence[Example] = ()
    solved: Callable[[], Sequence[float]] | None = None

    def __repr__(self) -> str:
        problems = "" if self.solved is None else ", problems"
        return f"EvaluationData({len(self.like)} texts like those trained on, {len(self.general)} others{problems})"


def measure(
    model: Model,
    folder: str | Path,
    data: EvaluationData,
    objective: Objective | None = None,
    *,
    foreign: bool = False,
    progress: bool = False,
) -> dict[str, list[float]]:
    """Measure an adapter.

    Args:
        model: the base model.
        folder: the adapter.
        data: what it is measured on.
        objective: the objective that it was trained for, which says what was inserted; None leaves those measures out.
        foreign: allow another model of the same shapes.
        progress: show a bar for each round through the texts.

    Returns:
        For each of :data:`MEASURES` that applies, one value for each text or problem.

    Raises:
        ProbeError: if the adapter does not fit the model.
    """
    passes, insertion = TextPasses(model, progress=progress), None if objective is None else objective.inserts
    found: dict[str, Any] = {}
    with attached(model, folder, foreign=foreign):
        if insertion is not None:
            for name, adapted in (("inserted", False), ("adapted", True)):
                with seeded(0, *model.devices):  # the same noise both times
                    found[name] = passes.kl(data.like, (False, None), (adapted, insertion))
        found["deployed"] = passes.kl(data.like, (False, None), (True, None))
        for name, texts in (("ce", data.like), ("general", data.general)):
            if texts:
                found[name] = passes.ce(texts, adapted=True) - passes.ce(texts, adapted=False)
        if data.solved is not None:
            with switched_off(model):
                before = torch.tensor(data.solved(), dtype=torch.float64)
            found["solved"] = torch.tensor(data.solved(), dtype=torch.float64) - before
    return {name: values.tolist() for name, values in found.items()}


def random_like(folder: str | Path, out: str | Path, seed: int) -> Path:
    """Write an untrained random adapter: in each module the rank and the norm of another adapter, in random directions.

    Args:
        folder: the other adapter.
        out: the folder that is written.
        seed: seeds the directions.

    Raises:
        ProbeError: if ``folder`` holds no LoRA.
    """
    folder, out = Path(folder), Path(out)
    tensors, generator, made = lora_tensors(folder), torch.Generator().manual_seed(seed), {}
    for name in sorted({name.partition(".lora_")[0] for name in tensors}):
        sides = [f"{name}.lora_{side}.weight" for side in "AB"]
        a, b = (torch.randn(tensors[side].shape, generator=generator) for side in sides)
        wanted = (tensors[sides[1]].float() @ tensors[sides[0]].float()).norm()
        made |= {sides[0]: a, sides[1]: b * wanted / (b @ a).norm()}
    out.mkdir(parents=True, exist_ok=True)
    save_file(made, out / WEIGHTS, {"format": "pt"})
    for name in ("adapter_config.json", "probe.json"):
        if (folder / name).exists():
            write_json(out / name, read_json(folder / name))
    return out


def summary(
    rows: Mapping[str, Sequence[Mapping[str, Sequence[float]]]], controls: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Summarise measured adapters: every measure with its interval, and the difference from the control.

    Args:
        rows: for each row, what :func:`measure` returned for each seed.
        controls: for some rows, the name of their control, which has the same seeds or a single one.

    Returns:
        For each row ``measures`` and, where its control was measured, ``against`` (the control's name) and
        ``difference``, as ``value`` and ``ci``.
    """
    values = {
        name: {what: torch.tensor([seed[what] for seed in seeds]) for what in MEASURES if what in seeds[0]}
        for name, seeds in rows.items()
    }
    found: dict[str, dict[str, Any]] = {}
    for name, mine in values.items():
        found[name] = {"measures": {what: mean_interval(each.numpy()).to_dict() for what, each in mine.items()}}
        if (control := controls.get(name)) in values:
            apart = {what: mine[what] - other for what, other in values[control].items() if what in mine}
            found[name] |= {
                "against": control,
                "difference": {what: mean_interval(each.numpy()).to_dict() for what, each in apart.items()},
            }
    return found

"""Objectives and their controls side by side: the same texts, steps and seeds, measured on texts that none has seen.

A gain that noise of the same size brings about as well is no gain of the SAE; so every row is compared, text by text
and seed by seed, with its control.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save_file

from probe.adapters.exports.attach import WEIGHTS, attached, lora_tensors, switched_off
from probe.adapters.training.objective import INSERTS, OBJECTIVES, Objective
from probe.adapters.training.packing import Example
from probe.adapters.verification.look import Look
from probe.config import nearest
from probe.errors import ProbeError
from probe.files import read_json, write_json
from probe.models import Model
from probe.statistics import mean_interval

#: What is measured of every adapter.
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
#: A LoRA that nobody trained, as large as the first row's.
RANDOM = "random"
_STOPPED = "-stopped"


@dataclass(frozen=True)
class Row:
    """One way to train an adapter, by name: ``OBJECTIVE``, ``OBJECTIVE-stopped``, and ``:INSERT`` for a control."""

    name: str
    objective: str
    through: bool = True
    insert: str = "sae"

    @classmethod
    def parse(cls, name: str) -> "Row":
        """Read a row's name.

        >>> Row.parse("resa-stopped:noise")
        Row(name='resa-stopped:noise', objective='resa', through=False, insert='noise')

        Raises:
            ProbeError: naming the nearest there is.
        """
        what, _, insert = name.partition(":")
        objective, insert = what.removesuffix(_STOPPED), insert or "sae"
        for part, known in ((objective, [*OBJECTIVES, RANDOM]), (insert, INSERTS)):
            if part not in known:
                raise ProbeError(f"rows has {name!r}: there is no {part!r}; {nearest(part, known)}")
        return cls(name, objective, not what.endswith(_STOPPED), insert)

    @property
    def inserts(self) -> bool:
        """Whether something is in the way while it is trained."""
        return self.objective in ("resa", "chen")

    @property
    def needs_latents(self) -> bool:
        """Whether it is about chosen latents."""
        return self.objective in ("steer-distil", "feature-match")

    @property
    def control(self) -> str | None:
        """The row with noise in the SAE's place; None for a row that inserts nothing."""
        if not self.inserts or self.insert == "noise":
            return None
        return f"{self.objective}{'' if self.through else _STOPPED}:noise"


@dataclass(frozen=True)
class Held:
    """What adapters are measured on.

    Attributes:
        like: texts like those trained on.
        general: others.
        solved: rolls the model out as it is and says of each problem whether it was solved; None without problems.
    """

    like: Sequence[Example]
    general: Sequence[Example] = ()
    solved: Callable[[], Sequence[float]] | None = None


def measure(
    model: Model,
    folder: str | Path,
    held: Held,
    objective: Objective | None = None,
    *,
    foreign: bool = False,
    progress: bool = False,
) -> dict[str, list[float]]:
    """Each of :data:`MEASURES` of an adapter, a value a text or problem; those that have no meaning are left out.

    Args:
        objective: says what was inserted while it was trained.
        foreign: allow a model that it was not trained on.

    Raises:
        ProbeError: if the adapter is not for this model.
    """
    look, insertion = Look(model, progress=progress), None if objective is None else objective.inserts
    found: dict[str, Any] = {}
    with attached(model, folder, foreign=foreign):
        if insertion is not None:
            torch.manual_seed(0)  # noise
            found["inserted"] = look.kl(held.like, (False, None), (False, insertion))
            torch.manual_seed(0)
            found["adapted"] = look.kl(held.like, (False, None), (True, insertion))
        found["deployed"] = look.kl(held.like, (False, None), (True, None))
        for name, texts in (("ce", held.like), ("general", held.general)):
            if texts:
                found[name] = look.ce(texts, adapted=True) - look.ce(texts, adapted=False)
        if held.solved is not None:
            with switched_off(model):
                before = torch.tensor(held.solved(), dtype=torch.float64)
            found["solved"] = torch.tensor(held.solved(), dtype=torch.float64) - before
    return {name: values.tolist() for name, values in found.items()}


def random_like(folder: str | Path, out: str | Path, seed: int) -> Path:
    """Write an adapter that nobody trained: of each module of another, the same rank and length, every direction drawn.

    Returns:
        ``out``.

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
    """A table of adapters: of each row every measure with its interval, and the difference from its control.

    Args:
        rows: by row, what :func:`measure` gave for each seed.
        controls: of some rows, the row that is their control; its seeds are the same, or it has one alone.

    Returns:
        By row ``measures`` and, where its control is there, ``against`` (the control's name) and ``difference``.
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

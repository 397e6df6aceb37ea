"""How the parts of a run's arms were trained, and whether they converged."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from probe.config import read_as
from probe.convergence import Check
from probe.pipeline.run.arms import recipe
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.run.stages import TRAINING, Training


def training(experiment: Experiment, arms: Iterable[str]) -> dict[str, Any]:
    """Collect the trained parts of all arms.

    Args:
        experiment: the run.
        arms: names of arms whose parts are trained.

    Returns:
        ``parts``: for each trained part whether it ``converged``, its maximum number of ``steps``, and ``checks``, its
        evaluations. ``arms``: for each arm the names of its parts.
    """
    first, root = experiment.config.steering.seeds[0], experiment.folder.path
    used = {
        name: [f"steering/seed-{first}" if part == "steering/seed" else part for part in recipe(name).parts]
        for name in arms
    }
    found = {part: _training(root / part) for part in dict.fromkeys(part for parts in used.values() for part in parts)}
    return {
        "parts": {_title(part): each for part, each in found.items() if each is not None},
        "arms": {name: [_title(part) for part in parts if found[part]] for name, parts in used.items()},
    }


def not_converged(trained: Mapping[str, Any], arm: str) -> list[str]:
    """Name the parts of an arm whose training reached its maximum number of steps."""
    return [part for part in trained["arms"].get(arm, []) if not trained["parts"][part]["converged"]]


class _Tune(TypedDict):
    steps: int


class _Card(TypedDict):
    converged: bool
    tune: _Tune


def _training(folder: Path) -> dict[str, Any] | None:
    if (folder / TRAINING).exists():
        return dict(read_as(Training, folder / TRAINING))
    card = folder / "probe.json"
    if not card.exists():
        return None
    told = read_as(_Card, card)
    checks = read_as(list[Check], folder / "history.json")
    return {"converged": told["converged"], "steps": told["tune"]["steps"], "checks": checks}


def _title(part: str) -> str:
    """Name a part for readers.

    >>> _title("steering/seed-0"), _title("steering/single"), _title("mechanisms/v1/v1-bias"), _title("policy")
    ('vectors, seed 0', 'single vector', 'v1-bias', 'policy')
    """
    name = part.rpartition("/")[2]
    return "single vector" if name == "single" else name.replace("seed-", "vectors, seed ")

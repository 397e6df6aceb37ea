"""What the files of an adapter's folder hold, as far as reports read them."""

from pathlib import Path
from typing import Any, NotRequired, TypedDict

from probe.config import read_as
from probe.errors import ProbeError

FIX = "run the same `probe adapter tune` again in another folder"
_MEASURE_AGAIN = "delete it and run `probe adapter verify` again"

Number = float | None
Ends = tuple[Number, Number] | None


class Estimate(TypedDict):
    """An estimate with its interval."""

    value: Number
    ci: Ends


class Check(TypedDict):
    """One evaluation during training, of ``history.json``."""

    step: float
    loss: float
    train: NotRequired[float]


class Cost(TypedDict):
    """What the training took."""

    tokens: float
    flops: float
    seconds: float


class Plan(TypedDict):
    """Which layers have a LoRA."""

    rank: int


class Base(TypedDict):
    """The model that the adapter is for."""

    architecture: str


class Objective(TypedDict):
    """What it was trained for."""

    name: str
    insert: str | None
    site: NotRequired[str | None]


class Card(TypedDict):
    """``probe.json``."""

    plan: Plan
    base: Base
    objective: Objective
    cost: Cost
    converged: NotRequired[bool]


class Damage(TypedDict):
    """The change on texts of one kind."""

    ce: Estimate


class Found(TypedDict):
    """``verification.json``; in earlier versions the random latents have the key ``drawn``."""

    reach: dict[str, Number]
    site_changed: Estimate
    moved: list[int]
    claimed: list[int]
    effect: Estimate
    necessity: dict[str, Estimate]
    sufficiency: dict[str, Estimate]
    alignment: dict[str, Number]
    damage: dict[str, Damage]
    insertion: dict[str, Estimate]
    behaviour: NotRequired[dict[str, Estimate] | None]
    texts: NotRequired[int | None]


class Row(TypedDict):
    """One adapter of ``foreign.json`` or ``study.json``."""

    measures: dict[str, Estimate]
    against: NotRequired[str]
    difference: NotRequired[dict[str, Estimate]]


class Foreign(TypedDict):
    """``foreign.json``."""

    model: str
    rows: dict[str, Row]


def read_adapter(out: str | Path) -> dict[str, Any]:
    """Read everything that the report of an adapter shows.

    Args:
        out: the folder that ``probe adapter tune`` wrote.

    Returns:
        ``card``, ``history``, ``cost``, and ``found`` and ``foreign``, which are None if they were not measured.

    Raises:
        ProbeError: if a file is missing or damaged.
    """
    out = Path(out)
    card = read_as(Card, out / "adapter" / "probe.json", fix=FIX)
    history = read_as(list[Check], out / "adapter" / "history.json", fix=FIX)
    if not history:
        raise ProbeError(f"{out / 'adapter' / 'history.json'} holds no evaluation; {FIX}")
    found, foreign = out / "verification.json", out / "foreign.json"
    read = read_as(Found, found, fix=_MEASURE_AGAIN) if found.exists() else None
    for part in ("sae", "sae and adapter"):
        if read is not None and part not in read["insertion"]:
            raise ProbeError(f"{found} lacks insertion.{part}; {_MEASURE_AGAIN}")
    return {
        "card": card,
        "history": history,
        "cost": card["cost"],
        "found": read,
        "foreign": read_as(Foreign, foreign, fix=_MEASURE_AGAIN) if foreign.exists() else None,
    }

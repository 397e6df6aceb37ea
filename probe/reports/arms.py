"""The arms of an experiment as a reader meets them: in which order, and what each one exchanges."""

from collections.abc import Iterable, Mapping
from typing import Any

#: What each arm is. The order is the one in which arms are shown; an arm that is not named here comes last.
MEANING = {
    "base": "the base model alone",
    "thinking": "the thinking model alone",
    "hybrid": "base model plus one vector per behaviour, added where the two models disagree",
    "oracle-free": "the hybrid that never asks: gate and behaviour are predicted from the base model alone",
    "single-vector": "one vector for all behaviours",
    "random-category": "right tokens and vectors, the behaviour drawn at random",
    "random-vectors": "random vectors of the same norms",
    "random-positions": "the same share of tokens, at random places",
    "rerank-only": "no vectors: of the base model's likeliest tokens, the one the thinking model likes best",
    "force-token": "no vectors: the thinking model's own token wherever the two disagree",
}

#: The controls that keep the amount of steering and make one part of it meaningless.
RANDOM_CONTROLS = ("random-category", "random-vectors", "random-positions")


def in_order(names: Iterable[str]) -> list[str]:
    """Arm names in the order in which they are shown; the hybrid's further seeds follow it."""
    known = list(MEANING)

    def place(name: str) -> tuple[int, str]:
        kind = "hybrid" if name.startswith("hybrid-seed-") else name
        return (known.index(kind), name) if kind in known else (len(known), name)

    return sorted(names, key=place)


def gap_of(results: Mapping[str, Any], arm: str) -> tuple[float | None, tuple[float, float] | None]:
    """The gap recovered by an arm as (value, interval); None where there is no gap or no figure."""
    return value_and_interval((results.get("gap_recovered") or {}).get(arm))


def value_and_interval(entry: Any) -> tuple[float | None, tuple[float, float] | None]:
    """Read ``{"value": 0.8, "ci": [0.7, 0.9]}``, or a bare number, or None."""
    if not isinstance(entry, Mapping):
        return entry, None
    low_high = entry.get("ci")
    return entry.get("value"), (low_high[0], low_high[1]) if low_high else None


def seeds_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The hybrid once per seed of the vectors: ``seed``, ``accuracy``, ``gap``, ``ci``."""
    seeds = results.get("seeds") or {}
    rows = []
    for seed, entry in zip(seeds.get("values", []), seeds.get("hybrid", []), strict=False):
        gap, interval = value_and_interval(entry.get("gap_recovered"))
        rows.append({"seed": seed, "accuracy": entry.get("accuracy"), "gap": gap, "ci": interval})
    return rows


def no_gap(results: Mapping[str, Any]) -> bool:
    """Whether the run found that base and thinking model differ by less than noise; False where it did not ask."""
    entries = (results.get("gap_recovered") or {}).values()
    return bool(entries) and all(value_and_interval(entry)[0] is None for entry in entries)

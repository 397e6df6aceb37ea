"""The arms of an experiment as a reader meets them: in which order, of which family, and what each one exchanges."""

from collections.abc import Iterable, Mapping
from typing import Any

from probe.reports.html.numbers import value_and_interval

#: What each arm is, by family. The order is the one in which arms are shown.
FAMILIES = {
    "main": {
        "base": "the base model alone",
        "thinking": "the thinking model alone",
        "hybrid": "base model plus one vector per behaviour, added where the two models disagree",
        "oracle-free": "the hybrid that never asks: gate and behaviour are predicted from the base model alone",
    },
    "control": {
        "single-vector": "one vector for all behaviours",
        "random-category": "right tokens and vectors, the behaviour drawn at random",
        "min-cosine": "the vector least similar to the right one",
        "random-vectors": "random vectors of the same norms",
        "random-positions": "the same share of tokens, at random places",
        "rerank-only": "no vectors: of the base model's likeliest tokens, the one the thinking model likes best",
        "force-token": "no vectors: the thinking model's own token wherever the two disagree",
    },
    "mechanism": {
        "mean-difference": "differences of means instead of learned vectors",
        "decoder-rows": "the SAE's decoder rows instead of learned vectors",
        "rank-1": "a rank-1 adapter per behaviour instead of a vector",
    },
    "rival": {
        "speculative": "the thinking model writes the first tokens of every sentence",
        "fusion": "both models' logits, added with a fixed weight",
        "lora": "LoRA distilled on the same traces",
        "lora-rank-1": "LoRA of rank 1, distilled on the same traces",
        "bias": "one trained vector added at every token",
        "majority": "majority of n answers of the base model at equal tokens",
        "few-shot": "base model, with worked examples in its prompt",
        "handbook": "base model, with the behaviours described in its prompt",
    },
    "recipe v1": {
        "v1": "version 1: several strengths are tried, the thinking model chooses the token",
        "v1-bias-only": "version 1 with one vector for all behaviours",
        "v1-random-category": "version 1, the behaviour drawn at random",
        "v1-random-vectors": "version 1 with random vectors of the same norms",
        "v1-random-choice": "version 1, one of the tokens tried drawn at random",
        "v1-fixed": "version 1 without the search: one strength",
        "v1-rerank": "version 1 without vectors: as many of the base model's likeliest tokens to choose from",
        "v1-learned-vectors": "version 1's search with the hybrid's own vectors",
    },
    "recipe v2": {
        "v2": "version 2: learned strengths, no search",
        "v2-random-category": "version 2, the behaviour drawn at random",
        "v2-random-vectors": "version 2 with random vectors of the same norms",
        "v2-random-both": "version 2, random vectors and the behaviour drawn at random",
        "v2-random-positions": "version 2, the same share of tokens at random places",
    },
}
MEANING = {name: meaning for members in FAMILIES.values() for name, meaning in members.items()}
FAMILY = {name: family for family, members in FAMILIES.items() for name in members}
#: The family of arms that are not named here; they come last.
OTHER = "other"

#: The controls that keep the amount of steering and make one part of it meaningless.
RANDOM_CONTROLS = ("random-category", "random-vectors", "random-positions")


def family_of(name: str) -> str:
    """The family of an arm; a further seed of the hybrid belongs where the hybrid does."""
    return FAMILY.get(_kind(name), OTHER)


def in_order(names: Iterable[str]) -> list[str]:
    """Arm names in the order in which they are shown; the hybrid's further seeds follow it."""
    known = list(MEANING)

    def place(name: str) -> tuple[int, str]:
        kind = _kind(name)
        return (known.index(kind), name) if kind in known else (len(known), name)

    return sorted(names, key=place)


def _kind(name: str) -> str:
    return "hybrid" if name.startswith("hybrid-seed-") else name


def gap_of(results: Mapping[str, Any], arm: str) -> tuple[float | None, tuple[float, float] | None]:
    """The gap recovered by an arm as (value, interval); None where there is no gap or no figure."""
    return value_and_interval((results.get("gap_recovered") or {}).get(arm))


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

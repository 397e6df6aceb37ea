"""How reports present arms: their order, their families, and what each arm is."""

from collections.abc import Iterable, Mapping
from typing import Any

from probe.models import Sampling
from probe.reports.html.numbers import value_and_interval

CHANGED = "thinking model, changed"
"""The family of arms that the thinking model writes alone. They are no baselines of the hybrid."""
UPPER_BOUND = "upper bound"
"""The family of arms that know the right answers. No arm is compared with them as with a baseline."""
FAMILIES = {
    "main": {
        "base": "the base model alone",
        "thinking": "the thinking model alone",
        "hybrid": "base model plus one vector for each behaviour, added where the two models disagree",
        "oracle-free": "the hybrid without an oracle: gate and behaviour are predicted from the base model alone",
    },
    "control": {
        "single-vector": "one vector for all behaviours",
        "random-category": "the same tokens and vectors, but a random behaviour",
        "min-cosine": "the vector least similar to the right one",
        "random-vectors": "random vectors of the same norms",
        "random-positions": "the same share of tokens, at random positions",
        "rerank-only": "no vectors: among the base model's most likely tokens, the one that the thinking model prefers",
        "force-token": "no vectors: the thinking model's own token wherever the two disagree",
    },
    "mechanism": {
        "mean-difference": "differences of means instead of learned vectors",
        "decoder-rows": "the SAE's decoder rows instead of learned vectors",
        "rank-1": "a rank-1 adapter for each behaviour instead of a vector",
    },
    "baseline": {
        "speculative": "the thinking model writes the first tokens of every sentence",
        "fusion": "the logits of both models, added with a fixed weight",
        "lora": "LoRA trained on the same traces",
        "lora-rank-1": "LoRA of rank 1, trained on the same traces",
        "bias": "one trained vector added at every token",
        "majority": "the majority of several answers of the base model, at equal tokens",
        "few-shot": "the base model with worked examples in its prompt",
        "handbook": "the base model with the behaviours described in its prompt",
        "budget": "the base model's thinking, stopped at a number of tokens or extended to it by a given text",
        "intervention": "the base model's thinking begins with a given instruction",
        "addition": "one difference of means added to every token of the base model",
        "thinking-then-base": "the thinking model writes the thinking, the base model the answer after it",
        "base-then-thinking": "the base model writes the thinking, the thinking model the answer after it",
        "thinking-opening": "the thinking model writes the first tokens, the base model all others",
        "latent-seek": "the base model, its first latent states updated for each problem by its own reward",
    },
    CHANGED: {
        "budget-on-thinking": "the thinking model's thinking, stopped or extended in the same way",
        "intervention-on-thinking": "the thinking model's thinking begins with a given instruction",
        "addition-on-thinking": "one difference of means added to every token of the thinking model",
    },
    UPPER_BOUND: {
        "latent-seek-grade": "latent-seek, rewarded by the true grade instead",
    },
    "recipe v1": {
        "v1": "version 1: several strengths are tried, the thinking model chooses the token",
        "v1-bias-only": "version 1 with one vector for all behaviours",
        "v1-random-category": "version 1 with random behaviours",
        "v1-random-vectors": "version 1 with random vectors of the same norms",
        "v1-random-choice": "version 1 with a random choice among the tokens tried",
        "v1-fixed": "version 1 without the search: one strength",
        "v1-rerank": "version 1 without vectors: a choice among the same number of the base model's most likely tokens",
        "v1-learned-vectors": "version 1's search with the hybrid's own vectors",
    },
    "recipe v2": {
        "v2": "version 2: learned strengths, no search",
        "v2-random-category": "version 2 with random behaviours",
        "v2-random-vectors": "version 2 with random vectors of the same norms",
        "v2-random-both": "version 2 with random vectors and random behaviours",
        "v2-random-positions": "version 2 at random positions, the same share of tokens",
    },
}
"""What each arm is, by family, in the order in which arms are shown."""
MEANING = {name: meaning for members in FAMILIES.values() for name, meaning in members.items()}
FAMILY = {name: family for family, members in FAMILIES.items() for name in members}
OTHER = "other"
"""The family of arms that are not named here; they come last."""

RANDOM_CONTROLS = ("random-category", "random-vectors", "random-positions")
"""The controls that keep the amount of steering and make one part of it meaningless."""


def sampling_sentence(results: Mapping[str, Any]) -> str:
    """Say how the models of a run were sampled; "" if everything was greedy."""
    told = results.get("sampling") or {}
    base, thinking = (Sampling(**(told.get(role) or {})) for role in ("base", "thinking"))
    if base.greedy and thinking.greedy:
        return ""
    if base == thinking:
        sentence = f"Both models and every arm are sampled: {base}"
    else:
        sentence = f"The thinking model is sampled: {thinking}. The base model and the arms: {base}"
    samples = told.get("samples") or 1
    more = f". Each problem has {samples} answers: accuracies are means over them, intervals are over problems"
    return f"{sentence}{more if samples > 1 else ''}."


def family_of(name: str) -> str:
    """Find the family of an arm; further seeds of the hybrid are in the family of the hybrid."""
    return FAMILY.get(_kind(name), OTHER)


def in_order(names: Iterable[str]) -> list[str]:
    """Sort arm names into the order in which they are shown; further seeds of the hybrid follow it."""
    known = list(MEANING)

    def place(name: str) -> tuple[int, str]:
        kind = _kind(name)
        return (known.index(kind), name) if kind in known else (len(known), name)

    return sorted(names, key=place)


def _kind(name: str) -> str:
    return "hybrid" if name.startswith("hybrid-seed-") else name


def gap_of(results: Mapping[str, Any], arm: str) -> tuple[float | None, tuple[float, float] | None]:
    """Read the gap recovered by an arm and its interval; each is None if there is none."""
    return value_and_interval((results.get("gap_recovered") or {}).get(arm))


def seeds_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the seeds of the hybrid's vectors.

    Returns:
        For each its ``seed``, ``accuracy``, ``gap`` and ``ci``, and whether it is ``marked`` as not converged.
    """
    seeds = results.get("seeds") or {}
    rows = []
    for seed, entry in zip(seeds.get("values", []), seeds.get("hybrid", []), strict=False):
        gap, interval = value_and_interval(entry.get("gap_recovered"))
        marked = bool(entry.get("not_converged"))
        rows.append({"seed": seed, "accuracy": entry.get("accuracy"), "gap": gap, "ci": interval, "marked": marked})
    return rows


def no_gap(results: Mapping[str, Any]) -> bool:
    """Whether base and thinking model differ by less than noise; False if the run did not measure it."""
    entries = (results.get("gap_recovered") or {}).values()
    return bool(entries) and all(value_and_interval(entry)[0] is None for entry in entries)

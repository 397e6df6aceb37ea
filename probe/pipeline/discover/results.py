"""Turns a finished discovery into ``discover.json``, from which its report is made."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from math import isnan
from typing import Any

from probe.activations import SentenceActivations
from probe.counters import count_behaviours
from probe.pipeline.discover.config import DiscoverConfig
from probe.pipeline.stages import describe_behaviours
from probe.problems import ProblemSet
from probe.taxonomy import Card, JudgedScores, Taxonomy, Trial, annotate, behaviour_map
from probe.traces import Traces

SCHEMA = 1

_SCORES = ("family", "seed", "rule", "score", "variance_explained", "stability", "agreement", "silhouette", "ami")
_EACH = ("decodability", "centroid_f1", "text_f1")


def discovered(
    config: DiscoverConfig,
    problem_set: ProblemSet,
    validation: Traces,
    acts: SentenceActivations,
    taxonomy: Taxonomy,
    cards: Sequence[Card],
    judged: JudgedScores | None,
) -> dict[str, Any]:
    """Collect what ``discover.json`` holds, schema version 1; sentences and traces are those of validation problems."""
    annotated = annotate(taxonomy, validation, acts)
    at = [annotated.behaviours[trace][sentence] for trace, sentence in acts.index]
    scores = taxonomy.scores
    return {
        "schema": SCHEMA,
        "model": taxonomy.model_name,
        "problems": {
            "name": problem_set.name,
            "train": config.sizes.train,
            "validation": config.sizes.validation,
            "note": problem_set.note,
            "accuracy": None if isnan(validation.accuracy) else validation.accuracy,
        },
        "seed": config.seed,
        "taxonomy": {
            "site": taxonomy.site,
            "n_behaviours": taxonomy.n_behaviours,
            **{name: scores.get(name) for name in (*_SCORES, "ami_by_seed", "type_f1", "names_failed")},
            **{name: _mean(scores.get(name)) for name in _EACH},
        },
        "grid": scores["candidates"],
        "behaviours": _behaviours(problem_set, taxonomy, acts.texts, at, cards),
        "usage": asdict(annotated.usage(seed=config.seed)),
        "transitions": {
            "counts": annotated.transitions().tolist(),
            "start": annotated.starts().tolist(),
            "end": annotated.ends().tolist(),
        },
        "traces": annotated.records(config.shown, problem_set.sentence_type),
        "map": behaviour_map(acts.rows(taxonomy.site), at, normaliser=taxonomy.normaliser, seed=config.seed).record(
            acts.texts
        ),
        "falsify": {"rule": config.falsify.rule, "verdicts": dict(Counter(card.verdict for card in cards))},
        "counters": count_behaviours(validation, problem_set.counter).to_dict(seed=config.seed),
        "judge": None if judged is None else judged.to_dict(),
    }


def _behaviours(
    problem_set: ProblemSet,
    taxonomy: Taxonomy,
    texts: Sequence[str],
    assigned: Sequence[int | None],
    cards: Sequence[Card],
) -> list[dict[str, Any]]:
    merged = taxonomy.edits.merged
    described = describe_behaviours(taxonomy, texts, assigned, problem_set.sentence_type)
    return [
        row
        | {
            "name": taxonomy.names[k],
            "label": taxonomy.labels[k],
            "description": edit.description or taxonomy.descriptions[k],
            "note": edit.note,
            "merged_into": merged[k] if merged[k] != k else None,
            "terms": [cue.text for cue in card.cues],
            **{name: (taxonomy.scores.get(name) or [None] * len(merged))[k] for name in _EACH},
            "card": _card(card),
        }
        for k, (row, edit, card) in enumerate(zip(described, taxonomy.edits.behaviours, cards, strict=True))
    ]


def _card(card: Card) -> dict[str, Any]:
    """Write a card as the page shows it; ``cards/cards.json`` holds it whole."""
    stability = card.stability
    return {
        "verdict": card.verdict,
        "reasons": list(card.reasons),
        "injection": _trial(card.injection),
        "removal": _trial(card.removal),
        "paraphrase": None if card.paraphrase is None else _trial(card.paraphrase),
        "content": _trial(card.content),
        "stability": None
        if stability.mean is None
        else {
            "n": stability.prefixes,
            "mean": stability.mean,
            "ci": None if stability.low is None else [stability.low, stability.high],
            "stable": stability.stable.value,
            "expected": stability.expected,
        },
    }


def _trial(trial: Trial) -> dict[str, Any] | None:
    fired = trial.fired
    if fired.low is None:
        return None
    return {
        "n": fired.n,
        "rate": fired.value,
        "ci": [fired.low, fired.high],
        "control": trial.control.value,
        "examples": list(trial.examples[:3]),
    }


def _mean(values: Sequence[float | None] | None) -> float | None:
    there = [value for value in values or () if value is not None]
    return sum(there) / len(there) if there else None

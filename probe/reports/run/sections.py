"""Further sections of the page: oracle bits, tests, the parts of version 1, and the effects of the vectors."""

from collections.abc import Iterable, Mapping
from typing import Any

from probe.reports.html.filling import whole
from probe.reports.html.numbers import percent
from probe.reports.run.arms import CHANGED, OTHER, UPPER_BOUND, family_of, gap_of, in_order

V1_PARTS = {
    "v1": ("its vectors", "the thinking model"),
    "v1-random-category": ("vectors of other behaviours", "the thinking model"),
    "v1-random-vectors": ("random vectors", "the thinking model"),
    "v1-bias-only": ("one vector", "the thinking model"),
    "v1-learned-vectors": ("the hybrid's vectors", "the thinking model"),
    "v1-rerank": ("no vectors: the base model's most likely tokens", "the thinking model"),
    "v1-random-choice": ("its vectors", "a random choice"),
    "v1-fixed": ("its vectors at one strength", "no choice"),
}
"""Version 1 and its variants: what is tried, and what chooses."""
HEADINGS = {
    "main": "",
    "control": "Controls: the hybrid with one part exchanged",
    "mechanism": "Other mechanisms",
    "baseline": "Baselines",
    CHANGED: "The thinking model, changed",
    UPPER_BOUND: "Upper bounds, which know the right answers",
    "recipe v1": "Version 1 as published",
    "recipe v2": "Version 2 as published",
    OTHER: "Others",
}
NAMINGS = {
    "single": "the last token, as published",
    "pooled": "the sentence so far",
    "coming": "a probe for the coming sentence",
}


_FLIP = ("n", "rate", "ci", "random", "unsteered", "starts")


def price_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Collect what every arm costs: oracle bits, passes, fitted parameters; and its difference from the reference."""
    arms, tests = results.get("arms") or {}, (results.get("tests") or {}).get("arms") or {}
    keys = (
        *("bits_per_token", "surprisal_per_token", "agreement", "fitted_parameters"),
        *("tokens_per_answer", "base_passes", "thinking_passes"),
    )
    rows = []
    for name in in_order(arms):
        parts = {part: bits for part, bits in (arms[name].get("parts") or {}).items() if bits}
        test = {key: (tests.get(name) or {}).get(key) for key in ("difference", "ci", "p", "p_holm")}
        rows.append({"name": name, "parts": parts, "test": test, **{key: arms[name].get(key) for key in keys}})
    return rows if any(row["bits_per_token"] is not None for row in rows) else []


def counted_passes(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the run counted passes; one of an earlier version did not."""
    return any(row["thinking_passes"] is not None for row in rows)


def v1_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Collect version 1 and its variants; empty if version 1 was not run."""
    arms = results.get("arms") or {}
    if "v1" not in arms:
        return []
    rows = []
    for name, (tried, chooser) in V1_PARTS.items():
        if name in arms:
            gap, low_high = gap_of(results, name)
            rows.append({"name": name, "tried": tried, "chooser": chooser, "gap": gap, "ci": low_high})
    return rows


def v1_sentence(results: Mapping[str, Any]) -> str:
    """Say how much of version 1's recovery is due to re-ranking alone."""
    whole, rerank = (gap_of(results, name)[0] for name in ("v1", "v1-rerank"))
    if whole is None or rerank is None:
        return ""
    if max(whole, rerank) <= 0:
        return "Neither version 1 nor re-ranking alone recovers anything here."
    if whole <= 0:
        return f"Version 1 recovers nothing here; re-ranking alone recovers {percent(rerank)}."
    if rerank <= 0:
        return "Version 1 recovers some of the gap and re-ranking alone nothing, so 0% of it is due to re-ranking."
    if rerank >= whole:
        return (
            "All of version 1's recovery is due to re-ranking: the thinking model recovers no less when it chooses "
            "among the same number of the base model's own tokens."
        )
    return (
        f"Of version 1's recovery, {percent(rerank / whole)} is due to re-ranking: the thinking model recovers "
        "that much when it chooses among the same number of the base model's own tokens."
    )


def effects_of(results: Mapping[str, Any], labels: Mapping[int, str]) -> dict[str, Any]:
    """Collect the rows of flip rates, ways of naming, errors by kind and counted behaviours; empty if not measured."""
    effects = results.get("effects") or {}
    flip = effects.get("flip") or {}
    rates = [
        {**whole(_FLIP, each), "label": labels.get(each["behaviour"], "")} for each in flip.get("per_behaviour") or []
    ]
    errors = effects.get("errors") or {}
    counters = (effects.get("counters") or {}).get("arms") or {}
    habits = sorted({habit for arm in counters.values() for habit in arm})
    return {
        "flip": [*rates, {**whole(_FLIP, flip), "behaviour": None, "label": "all"}] if rates else [],
        "gates": effects.get("gates") or [],
        "naming": [
            {"from": meaning, "share": (effects.get("naming") or {}).get(name)}
            for name, meaning in NAMINGS.items()
            if name in (effects.get("naming") or {})
        ],
        "errors": [
            {
                "name": name,
                **{key: errors[name].get(key) for key in ("n", "content", "behaviour", "unexplained")},
                "kinds": ", ".join(f"{kind} {count}" for kind, count in (errors[name].get("kinds") or {}).items()),
            }
            for name in in_order(errors)
        ],
        "habits": habits,
        "counters": [
            {"name": name, "habits": {habit: whole(("mean", "ci"), arm.get(habit)) for habit in habits}}
            for name, arm in ((name, counters[name]) for name in in_order(counters))
        ],
    }


def headings(names: list[str]) -> dict[str, str]:
    """Find the arms that begin a family, each with the heading of its family.

    Args:
        names: arms in the order of :func:`~probe.reports.run.arms.in_order`.
    """
    found: dict[str, str] = {}
    for name in names:
        heading = HEADINGS[family_of(name)]
        if heading and heading not in found.values():
            found[name] = heading
    return found

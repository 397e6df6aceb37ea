"""The headline of a run, and the sentences that qualify it."""

from collections.abc import Mapping
from typing import Any

from probe.reports.html.numbers import interval, percent
from probe.reports.run.arms import RANDOM_CONTROLS, gap_of, no_gap


def headline(results: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Say in one sentence what was recovered and against which controls.

    Args:
        results: the contents of ``results.json``.

    Returns:
        The headline and supporting sentences. If base and thinking model differ by no more than noise, the headline
        says "No gap" and makes no claim.
    """
    gap, gap_interval = gap_of(results, "hybrid")
    if no_gap(results):
        sentence = "No gap: base and thinking model differ by less than noise, so there is nothing to recover."
        return sentence, [_accuracies(results)]
    if gap is None:
        return "This run has no result for the hybrid.", [_accuracies(results)]

    base, thinking = ((results.get("arms") or {}).get(name, {}).get("accuracy") for name in ("base", "thinking"))
    if base is not None and thinking is not None and thinking < base:
        return "The thinking model is worse than the base model, so there is no gap to recover.", [_accuracies(results)]

    controls = {name: value for name in RANDOM_CONTROLS if (value := gap_of(results, name)[0]) is not None}
    # No-break spaces keep a value and its interval on one line.
    amount = f"{percent(gap)} {interval(gap_interval)}".strip().replace(" ", "\N{NO-BREAK SPACE}")
    sentence = f"Steering the base model recovers {amount} of the gap to the thinking model"
    if not controls:
        return f"{sentence}; no random control was run.", [_accuracies(results), *_others(results)]
    best = max(controls, key=lambda name: controls[name])
    sentence += f"; random controls recover at most {percent(controls[best])}."
    return sentence, [_accuracies(results), *_against(controls, gap_interval), *_others(results)]


def _accuracies(results: Mapping[str, Any]) -> str:
    arms, problems = results.get("arms") or {}, results.get("problems") or {}
    shown = [f"{name} {percent(arms[name].get('accuracy'))}" for name in ("base", "thinking", "hybrid") if name in arms]
    where = " ".join(str(part) for part in (problems.get("n"), problems.get("split"), "problems") if part is not None)
    which = problems.get("name", "an unnamed set")
    return f"Correct answers on {where} of {which}: {', '.join(shown) or 'none measured'}."


def _against(controls: Mapping[str, float], gap_interval: tuple[float, float] | None) -> list[str]:
    if gap_interval is None:
        return []
    reached = [name for name, value in controls.items() if value >= gap_interval[0]]
    if reached:
        names = " and ".join(reached)
        return [f"The interval does not lie above {names}, so correct and meaningless steering are not distinguished."]
    return [f"The interval lies above the value of every random control that was run ({', '.join(controls)})."]


def _others(results: Mapping[str, Any]) -> list[str]:
    sentences = {
        "single-vector": "One vector for all behaviours recovers {}.",
        "rerank-only": "Re-ranking the base model's tokens, without any vector, recovers {}.",
        "oracle-free": "Without asking the thinking model, the hybrid recovers {}.",
    }
    values = {name: gap_of(results, name)[0] for name in sentences}
    return [sentences[name].format(percent(value)) for name, value in values.items() if value is not None]

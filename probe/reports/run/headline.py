"""The headline of a run, and the sentences that qualify it."""

from collections.abc import Mapping
from typing import Any

from probe.reports.html.numbers import interval, percent, plural
from probe.reports.run.arms import FAMILIES, MEANING, RANDOM_CONTROLS, gap_of, no_gap, seeds_of
from probe.statistics import LEVEL, write_p

_FEW = 2
"""Fewer graded problems than this have no interval, so nothing can be said."""


def headline(results: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Say in one sentence what was recovered, against which controls, and beside which baseline.

    Args:
        results: the contents of ``results.json``.

    Returns:
        The headline and supporting sentences. Nothing is claimed without graded problems, or if base and thinking model
        differ by no more than noise.
    """
    gap, gap_interval = gap_of(results, "hybrid")
    arms, tested = results.get("arms") or {}, [_accuracies(results)]
    graded = [_n(arms[name]) for name in ("base", "thinking") if name in arms]
    few = min((n for n in graded if n is not None), default=None)
    if few is not None and few < _FEW:
        return f"Too few answers could be graded ({few}) to say whether there is a gap.", tested
    if no_gap(results):
        return (
            "No gap: base and thinking model are not distinguishable by accuracy, so there is nothing to recover.",
            tested,
        )
    if gap is None:
        return "This run has no result for the hybrid.", tested
    base, thinking = (arms.get(name, {}).get("accuracy") for name in ("base", "thinking"))
    if base is not None and thinking is not None and thinking < base:
        return "The thinking model is worse than the base model, so there is no gap to recover.", tested

    # No-break spaces keep a value and its interval on one line.
    amount = f"{percent(gap)} {interval(gap_interval)}".strip().replace(" ", "\N{NO-BREAK SPACE}")
    amount = amount if gap > 0 else f"nothing ({amount})"
    controls = {name: value for name in RANDOM_CONTROLS if (value := gap_of(results, name)[0]) is not None}
    sentence = "; ".join(
        (
            f"Steering the base model recovers {amount} of the gap to the thinking model",
            _random(controls),
            _best_baseline(results),
        )
    )
    about = [*_against(controls, gap_interval), *_baselines(results), *_others(results)]
    return f"{sentence}.", [*tested, *_seeds(results), *about]


def _n(arm: Mapping[str, Any]) -> int | None:
    """The number of graded answers of an arm; None if the run did not say."""
    return arm.get("n") if arm.get("accuracy") is not None else 0


def _accuracies(results: Mapping[str, Any]) -> str:
    arms, problems = results.get("arms") or {}, results.get("problems") or {}
    shown = [
        f"{name} {percent(arms[name].get('accuracy'))}" + _of(arms[name], problems.get("n"))
        for name in ("base", "thinking", "hybrid")
        if name in arms
    ]
    n = problems.get("n")
    where = "problems" if n is None else plural(n, "problem")
    if problems.get("split"):
        where = where.replace("problem", f"{problems['split']} problem")
    which = problems.get("name") or "an unnamed set"
    return f"Correct answers on {where} of {which}: {', '.join(shown) or 'none measured'}."


def _of(arm: Mapping[str, Any], n: int | None) -> str:
    """How many answers were graded, where not all were."""
    graded = _n(arm)
    return "" if graded is None or n is None or graded >= n else f" of the {graded:,} that could be graded"


def _random(controls: Mapping[str, float]) -> str:
    if not controls:
        return "no random control was run"
    best = max(controls.values())
    if len(controls) == 1:
        (name,) = controls
        return f"the only random control that was run, {name}, recovers {_share(best)}"
    return f"random controls recover at most {percent(best)}" if best > 0 else "random controls recover nothing"


def _graded_baselines(results: Mapping[str, Any]) -> dict[str, float]:
    """The accuracy of each baseline that has one, the best first."""
    arms = results.get("arms") or {}
    known = {name: arms[name].get("accuracy") for name in FAMILIES["baseline"] if name in arms}
    graded = {name: accuracy for name, accuracy in known.items() if accuracy is not None}
    return dict(sorted(graded.items(), key=lambda item: -item[1]))


def _best_baseline(results: Mapping[str, Any]) -> str:
    """The best baseline, its paired test against the hybrid, and further baselines that are better than the hybrid."""
    graded = _graded_baselines(results)
    if not graded:
        return "no baseline was run"
    best, *others = graded
    gap = gap_of(results, best)[0]
    value = f"solves {percent(graded[best])}" if gap is None else f"recovers {_share(gap)}"
    kind = "the best baseline" if others else "the only baseline that was run"
    better = [name for name in others if _verdict(results, name) == "significantly better"]
    more = f", as {'are' if len(better) > 1 else 'is'} {' and '.join(better)}" if better else ""
    return f"{kind}, {best}, {value} and {_SAID[_verdict(results, best)]}{more}"


_SAID = {
    "significantly better": "is significantly better than the hybrid",
    "significantly worse": "is significantly worse than the hybrid",
    "not distinguishable": "is not distinguishable from the hybrid",
    "not tested": "was not tested against the hybrid",
}


def _test(results: Mapping[str, Any], arm: str) -> Mapping[str, Any]:
    """The paired test of an arm against the hybrid; empty if there is none."""
    tests = results.get("tests") or {}
    return (tests.get("arms") or {}).get(arm) or {} if tests.get("reference") == "hybrid" else {}


def _verdict(results: Mapping[str, Any], arm: str) -> str:
    """How an arm does against the hybrid on the same problems, corrected over all arms."""
    test = _test(results, arm)
    difference, p = test.get("difference"), test.get("p_holm", test.get("p"))
    if difference is None or p is None:
        return "not tested"
    if p >= 1 - LEVEL or not difference:
        return "not distinguishable"
    return "significantly better" if difference > 0 else "significantly worse"


def _share(gap: float) -> str:
    return percent(gap) if gap > 0 else f"nothing ({percent(gap)})"


def _seeds(results: Mapping[str, Any]) -> list[str]:
    seeds, over = seeds_of(results), results.get("seeds") or {}
    if len(seeds) == 1:
        return ["The vectors were trained with one seed, so the spread between trainings is unknown."]
    if len(seeds) > 1 and over.get("mean") is not None:
        mean = f"{percent(over['mean'])} {interval((over.get('gap_recovered') or {}).get('ci'))}".rstrip()
        return [f"Over {len(seeds)} seeds of the vectors, steering recovers {mean} on average."]
    return []


def _against(controls: Mapping[str, float], gap_interval: tuple[float, float] | None) -> list[str]:
    if gap_interval is None or not controls:
        return []
    reached = [name for name, value in controls.items() if value >= gap_interval[0]]
    if reached:
        names = " and ".join(reached)
        return [f"The interval does not lie above {names}, so correct and meaningless steering are not distinguished."]
    if len(controls) == 1:
        return [f"The interval lies above the value of {', '.join(controls)}."]
    return [f"The interval lies above the value of every random control that was run ({', '.join(controls)})."]


def _baselines(results: Mapping[str, Any]) -> list[str]:
    """The paired tests of the best baseline, and of those that are significantly better than the hybrid."""
    said = []
    for i, name in enumerate(_graded_baselines(results)):
        verdict, test = _verdict(results, name), _test(results, name)
        if verdict == "not tested" or (i and verdict != "significantly better"):
            continue
        n = min((each for each in map(_n, _both(results, name)) if each is not None), default=None)
        told = [
            f"{percent(test['difference'], 1)} {interval(test.get('ci'))}".rstrip() + " correct",
            *([] if n is None else [plural(n, "problem")]),
            write_p(test.get("p_holm", test.get("p"))),
        ]
        corrected = ", corrected over all arms" if "p_holm" in test else ""
        said.append(f"{name} ({MEANING[name]}) minus hybrid: {', '.join(told)} (paired test{corrected}).")
    return said


def _both(results: Mapping[str, Any], arm: str) -> list[Mapping[str, Any]]:
    arms = results.get("arms") or {}
    return [arms[name] for name in ("hybrid", arm) if name in arms]


def _others(results: Mapping[str, Any]) -> list[str]:
    sentences = {
        "single-vector": "One vector for all behaviours recovers {}.",
        "rerank-only": "Re-ranking the base model's tokens, without any vector, recovers {}.",
        "oracle-free": "Without asking the thinking model, the hybrid recovers {}.",
    }
    values = {name: gap_of(results, name)[0] for name in sentences}
    return [sentences[name].format(_share(value)) for name, value in values.items() if value is not None]

"""Averages over the sentences of each behaviour: which behaviours matter."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from probe.counters import SCHEMES
from probe.pipeline.anchors.config import AnchorsConfig
from probe.problems import ProblemSet
from probe.statistics import mean_interval
from probe.taxonomy import Behaviour, find_behaviour
from probe.traces import Trace

_FOUND = 0.05
"""The false discovery rate below which a sentence changes the answers."""


def averages(
    config: AnchorsConfig, problem_set: ProblemSet, found: Sequence[dict[str, Any]], traces: Sequence[Trace]
) -> list[dict[str, Any]]:
    """The mean importance and shift of the sentences of each behaviour, with intervals over problems.

    Args:
        config: names the behaviours; by default all sentence types of the problem set, or all its counters.
        problem_set: whose types may be named.
        found: the rows of the traces.
        traces: the traces.

    Returns:
        A row for all sentences, then one for each behaviour that any sentence shows.
    """
    rows = [_average("all sentences", [[True] * len(row["sentences"]) for row in found], found)]
    for behaviour in _behaviours(config, problem_set):
        marks = behaviour.marks(list(traces))
        if any(map(any, marks)):
            rows.append(_average(behaviour.name, marks, found))
    return [row for row in rows if row["sentences"]]


def _behaviours(config: AnchorsConfig, problem_set: ProblemSet) -> list[Behaviour]:
    names = list(config.behaviours)
    if not names and not config.patterns:
        scheme = problem_set.counter
        usual = SCHEMES[scheme].names if scheme in SCHEMES and SCHEMES[scheme].mark is not None else ()
        names = list(problem_set.sentence_types) or [f"{scheme}:{name}" for name in usual]
    return [
        *(find_behaviour(name, problem_set=problem_set) for name in names),
        *map(Behaviour.of_pattern, config.patterns),
    ]


def _average(name: str, marks: Sequence[Sequence[bool]], found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    problems = list(dict.fromkeys(row["problem"] for row in found))
    row: dict[str, Any] = {"behaviour": name}
    some = [
        (problems.index(each["problem"]), sentence)
        for each, shown in zip(found, marks, strict=True)
        for sentence, mark in zip(each["sentences"], shown, strict=True)
        if mark
    ]
    row["sentences"] = len(some)
    row["problems"] = len({problem for problem, _ in some})
    for what in ("importance", "shift", "gone", "resilience"):
        known = [(at, each[what]["value"]) for at, each in some if each.get(what) and each[what]["value"] is not None]
        top, count = np.zeros(len(problems)), np.zeros(len(problems))
        for at, value in known:
            top[at] += value
            count[at] += 1
        there = count > 0
        row[what] = mean_interval(top[there], count[there]).to_dict() if known else None
    tested = [each["q"] for _, each in some if each.get("q") is not None]
    row["found"] = sum(q < _FOUND for q in tested) / len(tested) if tested else None
    return row

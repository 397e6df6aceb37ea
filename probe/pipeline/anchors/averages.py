"""Averages over the sentences of each behaviour: which behaviours matter."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from probe.counters import SCHEMES
from probe.errors import ProbeError
from probe.models import Model
from probe.pipeline.anchors.config import AnchorsConfig
from probe.pipeline.behaviour import named_behaviour, taxonomy_in
from probe.problems import ProblemSet
from probe.statistics import mean_interval
from probe.taxonomy import Behaviour
from probe.traces import Trace

_FOUND = 0.05
"""The false discovery rate below which a sentence changes the answers."""


def chosen_behaviours(config: AnchorsConfig, problem_set: ProblemSet, model: Model | None) -> list[Behaviour]:
    """The behaviours whose sentences are averaged.

    Args:
        config: names them. By default they are the categories of the run, if one is named, or else all sentence types
            of the problem set, or all its counters.
        problem_set: whose types may be named.
        model: the model, which a taxonomy must have been fitted on; None where there is none.

    Raises:
        ProbeError: if nothing has one of the names, or categories are named and there is no model.
    """
    if config.run is not None and model is None:
        raise ProbeError("categories need the activations of a model; leave out --run, or give --pair or --thinking")
    names = list(config.behaviours)
    if not names and config.run is not None:
        names = [str(i) for i in range(taxonomy_in(config.run).n_behaviours)]
    elif not names and not config.patterns:
        scheme = problem_set.counter
        usual = SCHEMES[scheme].names if scheme in SCHEMES and SCHEMES[scheme].mark is not None else ()
        names = list(problem_set.sentence_types) or [f"{scheme}:{name}" for name in usual]
    return [
        *(named_behaviour(name, problem_set, run=config.run, thinking=model) for name in names),
        *map(Behaviour.of_pattern, config.patterns),
    ]


def averages(
    behaviours: Sequence[Behaviour], found: Sequence[dict[str, Any]], traces: Sequence[Trace]
) -> list[dict[str, Any]]:
    """The mean importance and shift of the sentences of each behaviour, with intervals over problems.

    Args:
        behaviours: the behaviours.
        found: the rows of the traces.
        traces: the traces.

    Returns:
        A row for all sentences, then one for each behaviour that any sentence shows.
    """
    rows = [_average("all sentences", [[True] * len(row["sentences"]) for row in found], found)]
    for behaviour in behaviours:
        marks = behaviour.marks(list(traces))
        if any(map(any, marks)):
            rows.append(_average(behaviour.name, marks, found))
    return [row for row in rows if row["sentences"]]


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

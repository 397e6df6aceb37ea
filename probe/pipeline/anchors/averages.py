"""Averages over the sentences of each behaviour: which behaviours matter."""

from collections.abc import Sequence
from itertools import compress
from typing import Any

import numpy as np

from probe.anchors import FOUND
from probe.counters import SCHEMES
from probe.models import Model
from probe.pipeline.anchors.config import AnchorsConfig
from probe.pipeline.behaviour import named_behaviour, taxonomy_in
from probe.problems import ProblemSet
from probe.statistics import mean_interval
from probe.taxonomy import Behaviour
from probe.traces import Trace

_AVERAGED = ("importance", "shift", "gone", "resilience")
"""The measures that are averaged."""


def chosen_behaviours(config: AnchorsConfig, problem_set: ProblemSet, model: Model | None) -> list[Behaviour]:
    """The behaviours whose sentences are averaged.

    Args:
        config: names them. By default they are the categories of the run, if one is named, or else all sentence types
            of the problem set, or all its counters.
        problem_set: whose types may be named.
        model: the model, which a taxonomy must have been fitted on; None where there is none.

    Raises:
        ProbeError: if nothing has one of the names.
    """
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


class Averages:
    """The mean importance and shift of the sentences of each behaviour, with intervals over problems.

    Args:
        behaviours: the behaviours.
    """

    def __init__(self, behaviours: Sequence[Behaviour]) -> None:
        self._all = _Average("all sentences")
        self._each = [(behaviour, _Average(behaviour.name)) for behaviour in behaviours]

    def add(self, found: Sequence[dict[str, Any]], traces: Sequence[Trace]) -> None:
        """Take in some traces.

        Args:
            found: their rows.
            traces: the traces.
        """
        for row in found:
            self._all.add(row, [True] * len(row["sentences"]))
        for behaviour, average in self._each:
            for row, marks in zip(found, behaviour.marks(traces), strict=True):
                average.add(row, marks)

    @property
    def tested(self) -> dict[str, int]:
        """The number of sentences, how many of them were tested, and how many of these change the answers."""
        return {"n": self._all.sentences, "tested": self._all.tested, "found": self._all.found}

    def rows(self) -> list[dict[str, Any]]:
        """A row for all sentences, then one for each behaviour that any sentence shows."""
        averages = [self._all, *(average for _, average in self._each)]
        return [average.row() for average in averages if average.sentences]


class _Average:
    """Sums over the sentences of one behaviour, problem by problem."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sentences = self.tested = self.found = 0
        self.problems: set[str] = set()
        self.sums: dict[str, dict[str, list[float]]] = {what: {} for what in _AVERAGED}
        """For each measure and problem, the sum of the values and their number."""

    def add(self, row: dict[str, Any], marks: Sequence[bool]) -> None:
        for sentence in compress(row["sentences"], marks):
            self.sentences += 1
            self.problems.add(row["problem"])
            for what, sums in self.sums.items():
                if sentence.get(what) and (value := sentence[what]["value"]) is not None:
                    total = sums.setdefault(row["problem"], [0.0, 0])
                    total[0] += value
                    total[1] += 1
            if (q := sentence.get("q")) is not None:
                self.tested += 1
                self.found += q < FOUND

    def row(self) -> dict[str, Any]:
        return {
            "behaviour": self.name,
            "sentences": self.sentences,
            "problems": len(self.problems),
            **{
                what: mean_interval(*np.array(list(sums.values())).T).to_dict() if sums else None
                for what, sums in self.sums.items()
            },
            "found": self.found / self.tested if self.tested else None,
        }

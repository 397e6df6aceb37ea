"""Traces with a behaviour for each sentence: transitions, usage, positions and example sentences."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.activations import SentenceActivations, by_rows
from probe.errors import ProbeError
from probe.statistics import bootstrap
from probe.taxonomy.taxonomy import Taxonomy
from probe.traces import Trace, Traces, traces_html


@dataclass(frozen=True)
class GroupUsage:
    """How often each behaviour occurs in a group of traces."""

    traces: int
    """The number of traces in the group."""
    sentences: int
    """The number of their sentences that have a behaviour."""
    share: tuple[float | None, ...]
    """The share of each behaviour among those sentences; None if there are none."""
    ci: tuple[tuple[float, float] | None, ...]
    """The 95 % bootstrap interval of each share over traces; None if fewer than two traces have such a sentence."""


@dataclass(frozen=True)
class Usage:
    """How often each behaviour occurs; traces that could not be graded are only in ``all``."""

    all: GroupUsage
    correct: GroupUsage
    incorrect: GroupUsage


@dataclass(frozen=True)
class Excerpt:
    """A sentence with its neighbours."""

    trace: int
    """The index of its trace."""
    sentence: int
    """Its index in the trace."""
    problem_id: str
    correct: bool | None
    """Whether its trace is correct; None if the trace could not be graded."""
    before: str | None
    """The sentence before it; None for the first."""
    text: str
    after: str | None
    """The sentence after it; None for the last."""


@dataclass(frozen=True, eq=False)
class AnnotatedTraces:
    """Traces with a behaviour for each sentence. :func:`annotate` makes them with a taxonomy.

    Raises:
        ProbeError: if there is not one entry for each sentence, or a behaviour has no name.
    """

    traces: Traces
    behaviours: tuple[tuple[int | None, ...], ...]
    """For each trace, the behaviour of each sentence; None for a sentence that has none."""
    names: tuple[str, ...]
    """The name of each behaviour."""

    def __post_init__(self) -> None:
        counts = [len(trace.sentences) for trace in self.traces]
        if [len(row) for row in self.behaviours] != counts:
            raise ProbeError("behaviours and traces do not fit together; give one entry (or None) for each sentence")
        used = {behaviour for row in self.behaviours for behaviour in row if behaviour is not None}
        if used and not 0 <= min(used) <= max(used) < len(self.names):
            raise ProbeError(f"behaviours must be None or 0 to {len(self.names) - 1}, which have names")

    def __len__(self) -> int:
        """The number of traces."""
        return len(self.traces)

    def __getitem__(self, index: int | slice) -> "AnnotatedTraces":
        """Some of the traces with their behaviours; by an index one of them, which a notebook shows whole."""
        if not isinstance(index, slice):
            at = range(len(self))[index]
            index = slice(at, at + 1)
        return AnnotatedTraces(self.traces[index], self.behaviours[index], self.names)

    def transitions(self) -> Int[np.ndarray, "behaviour behaviour"]:
        """Count how often a sentence of one behaviour (row) is followed by one of another (column).

        A sentence without a behaviour breaks the chain: its neighbours are not a transition.
        """
        counts = np.zeros((len(self.names), len(self.names)), dtype=int)
        for row in self.behaviours:
            for first, second in pairwise(row):
                if first is not None and second is not None:
                    counts[first, second] += 1
        return counts

    def starts(self) -> Int[np.ndarray, " behaviour"]:
        """Count the traces that begin with each behaviour."""
        return self._count(row[0] for row in self.behaviours if row)

    def ends(self) -> Int[np.ndarray, " behaviour"]:
        """Count the traces that end with each behaviour."""
        return self._count(row[-1] for row in self.behaviours if row)

    def usage(self, *, seed: int = 0) -> Usage:
        """Measure the share of each behaviour among sentences, in all, correct and incorrect traces.

        Args:
            seed: seeds the resampling of traces.
        """
        grades = [_grade(trace) for trace in self.traces]
        groups = (range(len(self)), *([i for i, grade in enumerate(grades) if grade is good] for good in (True, False)))
        return Usage(*(self._group(list(group), seed) for group in groups))

    def positions(self) -> list[Float[np.ndarray, " sentence"]]:
        """Return, for each behaviour, where its sentences lie in their traces, from 0 to 1.

        Sentence i of n, counted from 0, lies at (i + 0.5) / n.
        """
        found: list[list[float]] = [[] for _ in self.names]
        for row in self.behaviours:
            for i, behaviour in enumerate(row):
                if behaviour is not None:
                    found[behaviour].append((i + 0.5) / len(row))
        return [np.asarray(places, dtype=float) for places in found]

    def sentences(self, behaviour: int, n: int = 10, correct: bool | None = None, *, seed: int = 0) -> list[Excerpt]:
        """Return random sentences of a behaviour with their neighbours, in the order of the traces.

        Args:
            behaviour: the number of the behaviour.
            n: the maximum number of sentences.
            correct: take them from correct (True) or incorrect (False) traces only; None for all traces.
            seed: seeds the choice.

        Raises:
            ProbeError: if there is no such behaviour.
        """
        if not 0 <= behaviour < len(self.names):
            raise ProbeError(f"there is no behaviour {behaviour}; give 0 to {len(self.names) - 1}")
        places = [
            (number, i)
            for number, row in enumerate(self.behaviours)
            if correct is None or _grade(self.traces[number]) is correct
            for i, each in enumerate(row)
            if each == behaviour
        ]
        if len(places) > n:
            chosen = np.random.default_rng(seed).choice(len(places), n, replace=False)
            places = [places[i] for i in sorted(chosen)]
        return [self._excerpt(*place) for place in places]

    def records(
        self, n: int | None = None, sentence_type: Callable[[str], str | None] | None = None
    ) -> list[dict[str, Any]]:
        """Return the first ``n`` traces as JSON-able records, the input of ``timeline_figure`` and the discovery page.

        Args:
            n: how many traces; None for all.
            sentence_type: gives the true type of a sentence, where the problem set knows it.
        """
        return [
            {
                "problem_id": trace.problem_id,
                "correct": _grade(trace),
                "answer": trace.answer,
                "truncated": trace.truncated,
                "think_end": trace.think_end,
                "sample": trace.sample,
                "author": trace.author,
                "sentences": [
                    {
                        "text": trace.sentence_text(sentence),
                        "behaviour": behaviour,
                        "type": sentence_type(trace.sentence_text(sentence)) if sentence_type else None,
                        "tokens": sentence.token_end - sentence.token_start,
                    }
                    for sentence, behaviour in zip(trace.sentences, row, strict=True)
                ],
            }
            for trace, row in zip(self.traces[:n], self.behaviours, strict=False)
        ]

    @cached_property
    def _counts(self) -> Int[np.ndarray, "trace behaviour"]:
        rows = [self._count(row) for row in self.behaviours]
        return np.asarray(rows, dtype=int).reshape(len(self), len(self.names))

    def _count(self, behaviours: Sequence[int | None] | Iterator[int | None]) -> Int[np.ndarray, " behaviour"]:
        known = np.asarray([behaviour for behaviour in behaviours if behaviour is not None], dtype=int)
        return np.bincount(known, minlength=len(self.names))

    def _group(self, traces: list[int], seed: int) -> GroupUsage:
        counts = self._counts[traces]
        total = int(counts.sum())
        if not total:
            return GroupUsage(len(traces), 0, (None,) * len(self.names), (None,) * len(self.names))
        share = tuple((counts.sum(0) / total).tolist())
        counts = counts[counts.sum(1) > 0]
        if len(counts) < 2:
            return GroupUsage(len(traces), total, share, (None,) * len(self.names))

        def shares(items: np.ndarray) -> np.ndarray:
            totals = counts[items].sum(1)
            return (totals / totals.sum(1, keepdims=True)).T

        low, high = bootstrap(shares, len(counts), width=len(self.names), seed=seed)
        return GroupUsage(len(traces), total, share, tuple(zip(low.tolist(), high.tolist(), strict=True)))

    def _excerpt(self, number: int, i: int) -> Excerpt:
        trace = self.traces[number]
        texts = trace.sentence_texts
        before, after = texts[i - 1] if i else None, texts[i + 1] if i + 1 < len(texts) else None
        return Excerpt(number, i, trace.problem_id, _grade(trace), before, texts[i], after)

    def __repr__(self) -> str:
        known = sum(behaviour is not None for row in self.behaviours for behaviour in row)
        total = sum(map(len, self.behaviours))
        return f"AnnotatedTraces({len(self)} traces, {known} of {total} sentences in {len(self.names)} behaviours)"

    def _repr_html_(self) -> str:
        return traces_html(self.traces, repr(self), self.behaviours, self.names)


def annotate(taxonomy: Taxonomy, traces: Traces, activations: SentenceActivations) -> AnnotatedTraces:
    """Assign a behaviour to each sentence of some traces.

    A sentence that was not harvested has no behaviour, and neither has an outlier or one whose activation is not
    finite.

    Args:
        taxonomy: assigns the behaviours; the names and merges of its ``behaviours.yaml`` apply.
        activations: what was harvested from these traces at the taxonomy's site.

    Raises:
        ProbeError: if the taxonomy's site was not harvested, or the activations are of other traces.
    """
    if taxonomy.site not in activations.vectors:
        harvested = ", ".join(activations.sites) or "no site"
        raise ProbeError(
            f"the taxonomy reads {taxonomy.site}, but the traces were harvested at {harvested}; harvest them there"
        )

    def assign(x: Tensor) -> Tensor:
        usable = taxonomy.normaliser.keep(x) & x.isfinite().all(-1)
        found = torch.full((len(x),), -1, device=x.device)
        found[usable] = taxonomy.behaviour(x[usable])
        return found

    found = by_rows(assign, activations.rows(taxonomy.site)).tolist()
    rows: list[list[int | None]] = [[None] * len(trace.sentences) for trace in traces]
    for (number, i), text, behaviour in zip(activations.index, activations.texts, found, strict=True):
        if not (number < len(rows) and i < len(rows[number]) and text == _text(traces[number], i)):
            raise ProbeError(f"sentence {i} of trace {number} was harvested from other traces; harvest these traces")
        if behaviour >= 0:
            rows[number][i] = behaviour
    return AnnotatedTraces(traces, tuple(tuple(taxonomy.edits.apply(row)) for row in rows), tuple(taxonomy.names))


def _text(trace: Trace, i: int) -> str:
    return trace.sentence_text(trace.sentences[i])


def _grade(trace: Trace) -> bool | None:
    return None if trace.failed else trace.correct

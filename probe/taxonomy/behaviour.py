"""One behaviour as a predicate on sentences, whatever defines it: a taxonomy, a counter, a grammar or a pattern."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from probe.activations import harvest
from probe.config import as_pattern, nearest
from probe.counters import SCHEMES, usual_sentences
from probe.errors import ProbeError
from probe.models import Model
from probe.problems import ProblemSet
from probe.taxonomy.annotated import AnnotatedTraces, annotate
from probe.taxonomy.taxonomy import Taxonomy
from probe.traces import Trace, Traces

_AT_ONCE = 64
"""Traces whose sentence vectors are held at once: about 0.1 GB for a model 4,096 wide and 100 sentences a trace."""
Marks = list[list[bool]]
"""For each trace, whether each of its sentences shows the behaviour."""


@dataclass(frozen=True, repr=False)
class Behaviour:
    """What a sentence does: a category of a taxonomy, a counter, a true type of a bundled problem set, or a pattern.

    Every function that takes a behaviour takes any of the four. :func:`find_behaviour` makes one from its name.

    Example:
        >>> check = Behaviour.of_counter("habits:verification")
        >>> check
        Behaviour('habits:verification', counter)
        >>> check.shows("Let me double-check that.")
        True
    """

    name: str
    """What tables and pages call it."""
    source: Literal["category", "counter", "type", "pattern"]
    """What defines it."""
    mark: Callable[[Sequence[Trace]], Marks]
    """Says for each sentence of some traces of one model whether it shows the behaviour."""
    test: Callable[[str], bool] | None = None
    """Says whether a single sentence shows it; None where that depends on more than the sentence's text."""

    @classmethod
    def of_type(cls, problem_set: ProblemSet, name: str) -> "Behaviour":
        """A type of sentence, as the grammar of a bundled problem set defines it.

        Args:
            problem_set: the problems whose traces are marked.
            name: the type, for example ``check``.

        Raises:
            ProbeError: if sentences of these problems have no types, or none of that name.
        """
        sentence_type = problem_set.sentence_type
        if sentence_type is None:
            raise ProbeError(
                f"sentences of {problem_set.name} have no types; name a counter (SCHEME:NAME) "
                "or a category of a taxonomy"
            )
        if problem_set.sentence_types and name not in problem_set.sentence_types:
            raise ProbeError(f"no type of sentence is called {name!r}; {nearest(name, problem_set.sentence_types)}")

        def test(text: str) -> bool:
            return sentence_type(text) == name

        return cls(name, "type", lambda traces: [[test(text) for text in usual_sentences(t)] for t in traces], test)

    @classmethod
    def of_counter(cls, name: str) -> "Behaviour":
        """A counter.

        Args:
            name: ``SCHEME:NAME``, for example ``habits:verification``.

        Raises:
            ProbeError: if there is no such scheme or name, or the scheme counts in whole answers and not in sentences.
        """
        scheme, _, counted = name.partition(":")
        if scheme not in SCHEMES:
            raise ProbeError(f"behaviour is {name!r}; write SCHEME:NAME; {nearest(scheme, SCHEMES)}")
        rules = SCHEMES[scheme]
        if counted not in rules.names:
            raise ProbeError(f"the scheme {scheme} has no counter {counted!r}; {nearest(counted, rules.names)}")
        mark = rules.mark
        if mark is None:
            raise ProbeError(f"the scheme {scheme} counts in whole answers, not in sentences; use another scheme")

        def marks(traces: Sequence[Trace]) -> Marks:
            return [[counted in found for found in mark(usual_sentences(trace))] for trace in traces]

        return cls(name, "counter", marks, None if rules.in_order else lambda text: counted in mark([text])[0])

    @classmethod
    def of_pattern(cls, pattern: "str | re.Pattern[str]") -> "Behaviour":
        """The sentences in which a regular expression is found.

        Args:
            pattern: searched for anywhere in a sentence; the trace's think tags are written ``<think>`` and
                ``</think>``.

        Raises:
            ProbeError: if it is empty or is no regular expression.

        Example:
            >>> Behaviour.of_pattern(r"\\bWait\\b").shows("Wait, that is wrong.")
            True
        """
        said = as_pattern(pattern) if isinstance(pattern, str) else pattern

        def test(text: str) -> bool:
            return said.search(text) is not None

        return cls(
            said.pattern, "pattern", lambda traces: [[test(text) for text in usual_sentences(t)] for t in traces], test
        )

    @classmethod
    def of_category(cls, taxonomy: Taxonomy, which: int | str, model: Model) -> "Behaviour":
        """A category of a taxonomy.

        Args:
            taxonomy: the taxonomy, with the names and merges of its ``behaviours.yaml``.
            which: the category's number or name; one that was merged into another stands for that other.
            model: the model that the taxonomy reads. It runs over all traces that are marked.

        Raises:
            ProbeError: if there is no such category.
        """
        names = taxonomy.names
        if isinstance(which, str) and which.isdecimal():
            which = int(which)
        if isinstance(which, str):
            if which not in names:
                raise ProbeError(f"the taxonomy has no behaviour {which!r}; {nearest(which, names)}")
            which = names.index(which)
        if not 0 <= which < len(names):
            raise ProbeError(f"the taxonomy has no behaviour {which}; its numbers are 0 to {len(names) - 1}")
        number = taxonomy.edits.merged[which]

        def mark(traces: Sequence[Trace]) -> Marks:
            rows: list[list[bool]] = []
            for start in range(0, len(traces), _AT_ONCE):
                some = Traces(model.name, "", list(traces[start : start + _AT_ONCE]))
                found = annotate(taxonomy, some, harvest(model, some, taxonomy.site))
                rows += [[behaviour == number for behaviour in row] for row in found.behaviours]
            return rows

        return cls(names[number], "category", mark)

    def shows(self, sentence: str) -> bool:
        """Whether a sentence shows the behaviour, by its text alone.

        Raises:
            ProbeError: if that depends on the sentence's trace; use :meth:`marks`.
        """
        if self.test is None:
            raise ProbeError(f"whether a sentence shows {self.name!r} depends on its trace; use marks(traces)")
        return self.test(sentence)

    def marks(self, traces: Sequence[Trace], *, required: bool = False) -> Marks:
        """For each trace, whether each of its sentences shows the behaviour.

        Args:
            traces: traces of one model.
            required: refuse traces in which no sentence shows it, or every sentence does.

        Raises:
            ProbeError: if ``required`` and no sentence or every sentence shows it.
        """
        found = self.mark(traces)
        if required and not any(map(any, found)):
            raise ProbeError(f"no sentence of these {len(traces)} traces shows {self.name!r}; name another behaviour")
        if required and all(map(all, found)):
            raise ProbeError(
                f"every sentence of these {len(traces)} traces shows {self.name!r}, so there is nothing to compare "
                "with; name another behaviour"
            )
        return found

    def __repr__(self) -> str:
        return f"Behaviour({self.name!r}, {self.source})"


def find_behaviour(
    name: "int | str | re.Pattern[str]",
    *,
    problem_set: ProblemSet | None = None,
    taxonomy: Taxonomy | None = None,
    model: Model | None = None,
) -> Behaviour:
    """Find the behaviour that a command or a notebook names.

    Args:
        name: the number or name of a taxonomy's category, ``SCHEME:NAME`` for a counter, or a type of sentence. Where
            several have that name, the category comes first. A compiled regular expression stands for the sentences in
            which it is found.
        problem_set: its types of sentence may be named.
        taxonomy: its categories may be named; give the ``model`` that it reads as well.
        model: the model that the taxonomy reads.

    Raises:
        ProbeError: if nothing has that name; the message names the nearest that exists.
    """
    if isinstance(name, re.Pattern):
        return Behaviour.of_pattern(name)
    text = str(name)
    typed = problem_set is not None and problem_set.sentence_type is not None
    if taxonomy is not None and (text.isdecimal() or text in taxonomy.names or not (typed or ":" in text)):
        if model is None:
            raise ProbeError(f"behaviour {text!r} is a category of a taxonomy; give the model that the taxonomy reads")
        return Behaviour.of_category(taxonomy, name, model)
    if ":" in text:
        return Behaviour.of_counter(text)
    if text.isdecimal():
        raise ProbeError(f"behaviour {text} is the number of a category; give the run or the taxonomy that has it")
    if problem_set is None:
        raise ProbeError(f"behaviour is {text!r}; write SCHEME:NAME, or give the problem set or taxonomy that has it")
    return Behaviour.of_type(problem_set, text)


def show_behaviours(
    traces: Traces,
    behaviours: "Sequence[int | str | re.Pattern[str] | Behaviour]",
    *,
    problem_set: ProblemSet | None = None,
    taxonomy: Taxonomy | None = None,
    model: Model | None = None,
) -> AnnotatedTraces:
    """Mark the sentences of some traces with the behaviours that they show, for a notebook to show in colours.

    A sentence that shows several has the first of them. For all behaviours of a taxonomy at once, :func:`annotate` is
    faster.

    Args:
        traces: the traces; a notebook shows the first 20, so ``traces[:20]`` is enough to read them.
        behaviours: behaviours, or names as :func:`find_behaviour` takes them, for example
            ``["habits:verification", "habits:backtracking"]``.
        problem_set, taxonomy, model: what the names belong to; see :func:`find_behaviour`.

    Raises:
        ProbeError: if there is no behaviour, or nothing has one of the names; the message names the nearest.
    """
    if not behaviours:
        raise ProbeError("no behaviour to show; name at least one, for example habits:verification")
    found = [
        each
        if isinstance(each, Behaviour)
        else find_behaviour(each, problem_set=problem_set, taxonomy=taxonomy, model=model)
        for each in behaviours
    ]
    marks = [each.marks(traces) for each in found]
    rows = tuple(
        tuple(next((k for k, mark in enumerate(shows) if mark), None) for shows in zip(*of_trace, strict=True))
        for of_trace in zip(*marks, strict=True)
    )
    return AnnotatedTraces(traces, rows, tuple(each.name for each in found))

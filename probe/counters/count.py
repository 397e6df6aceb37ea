"""Counting behaviours in traces by any scheme."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from probe.config import nearest
from probe.counters.countdown import count_countdown
from probe.counters.countdown_words import countdown_problem
from probe.counters.habits import HABITS, habits_of
from probe.counters.schemes import EIGHT, SIX, label_sentences
from probe.counters.story import mark_story
from probe.counters.table import BehaviourCounts
from probe.errors import ProbeError
from probe.traces import Trace, Traces, split_sentences


@dataclass(frozen=True)
class Scheme:
    """A way of counting behaviours from text alone.

    Attributes:
        names: the behaviours that it counts.
        mark: gives the behaviours that each sentence of a trace shows, for its sentences in order; None for a scheme
            that counts in whole answers.
        count: counts each behaviour in a trace.
        in_order: whether the marks of a sentence depend on the sentences before it.
    """

    names: tuple[str, ...]
    mark: Callable[[Sequence[str]], list[frozenset[str]]] | None
    count: Callable[[Trace], Mapping[str, int]]
    in_order: bool = False


def _counting_marks(mark: Callable[[Sequence[str]], list[frozenset[str]]]) -> Callable[[Trace], Mapping[str, int]]:
    return lambda trace: Counter(name for found in mark(_sentences(trace)) for name in found)


def _by_rules(sentences: Sequence[str]) -> list[frozenset[str]]:
    return [habits_of(sentence) for sentence in sentences]


def _by_labels(scheme: str) -> Callable[[Sequence[str]], list[frozenset[str]]]:
    return lambda sentences: [
        frozenset() if label is None else frozenset((label,)) for label in label_sentences(sentences, scheme)
    ]


def _of_countdown(trace: Trace) -> dict[str, int]:
    return count_countdown(trace.think_tags.as_default(trace.text), *countdown_problem(trace.prompt))


#: The schemes by name.
SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        "habits": Scheme(HABITS, _by_rules, _counting_marks(_by_rules)),
        "six": Scheme(SIX, _by_labels("six"), _counting_marks(_by_labels("six"))),
        "eight": Scheme(EIGHT, _by_labels("eight"), _counting_marks(_by_labels("eight"))),
        "countdown": Scheme(HABITS, None, _of_countdown),
        "story": Scheme(HABITS, mark_story, _counting_marks(mark_story), in_order=True),
    }
)


def count_habits(what: str | Trace) -> dict[str, int]:
    """Count the sentences of a text or a trace that show each of the four habits, by the rules of :mod:`.habits`.

    Args:
        what: a text, which is split into sentences, or a trace.
    """
    found = Counter(habit for sentence in _sentences(what) for habit in habits_of(sentence))
    return {habit: found[habit] for habit in HABITS}


def count_behaviours(traces: Traces | Sequence[Trace], scheme: str = "habits") -> BehaviourCounts:
    """Count each behaviour of a scheme in each trace, from its text alone.

    Args:
        scheme: ``habits`` counts the four habits in any text by heuristic rules. ``countdown`` and ``story`` count the
            same four exactly, in traces of Countdown and of the bundled story problems. ``six`` and ``eight`` label
            sentences by two published schemes, by heuristic rules.

    Returns:
        The counts, one row for each trace.

    Raises:
        ProbeError: if there is no such scheme, or a trace is not of a Countdown problem for ``countdown``.
    """
    if scheme not in SCHEMES:
        raise ProbeError(f"unknown scheme of behaviours {scheme!r}; {nearest(scheme, SCHEMES)}")
    names = SCHEMES[scheme].names
    found = [SCHEMES[scheme].count(trace) for trace in traces]
    return BehaviourCounts(
        scheme,
        names,
        np.asarray([[one.get(name, 0) for name in names] for one in found], dtype=int).reshape(-1, len(names)),
        np.asarray([len(trace.sentences) for trace in traces], dtype=int),
        tuple(trace.problem_id for trace in traces),
        tuple(None if trace.failed else trace.correct for trace in traces),
    )


def usual_sentences(trace: Trace) -> list[str]:
    """The text of each sentence, with ``<think>`` and ``</think>`` for the trace's own tags: the rules know those."""
    return [trace.think_tags.as_default(text) for text in trace.sentence_texts]


def _sentences(what: str | Trace) -> list[str]:
    if isinstance(what, Trace):
        return usual_sentences(what)
    return [what[start:end] for start, end in split_sentences(what)]

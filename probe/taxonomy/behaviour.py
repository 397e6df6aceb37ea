"""One behaviour as a predicate on sentences, wherever its definition comes from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from probe.activations import harvest
from probe.config import nearest
from probe.counters import SCHEMES
from probe.errors import ProbeError
from probe.models import Model
from probe.problems import ProblemSet
from probe.taxonomy.annotated import annotate
from probe.taxonomy.taxonomy import Taxonomy
from probe.traces import Trace, Traces

Marks = list[list[bool]]
"""For each trace, whether each of its sentences shows the behaviour."""


@dataclass(frozen=True)
class Behaviour:
    """What a sentence does: a category that an SAE found, a counter by rules, or the true type of a bundled set.

    Every function that takes a behaviour takes any of the three. :func:`find_behaviour` makes one from its name.

    Attributes:
        name: how tables and pages call it.
        source: where its definition comes from.
        mark: given some traces of one model, says for each sentence of each trace whether it shows the behaviour.

    Example:
        >>> check = Behaviour.of_counter("habits:verification")
        >>> check
        Behaviour('habits:verification', counter)
        >>> check.shows("Let me double-check that.")
        True
    """

    name: str
    source: Literal["category", "counter", "type"]
    mark: Callable[[Sequence[Trace]], Marks]
    text: Callable[[str], bool] | None = None
    """Whether a single sentence shows it; None where that depends on more than the sentence's text."""

    @classmethod
    def of_type(cls, problem_set: ProblemSet, name: str) -> "Behaviour":
        """A true type of sentence, as the grammar of a bundled problem set tells it.

        Raises:
            ProbeError: if sentences of these problems have no types, or none of that name.
        """
        kind = problem_set.sentence_type
        if kind is None:
            raise ProbeError(
                f"sentences of {problem_set.name} have no types: name a counter (SCHEME:NAME) "
                "or a category of a taxonomy"
            )
        if problem_set.sentence_types and name not in problem_set.sentence_types:
            raise ProbeError(f"no type of sentence is called {name!r}; {nearest(name, problem_set.sentence_types)}")
        return cls._of_texts(name, "type", lambda text: kind(text) == name)

    @classmethod
    def of_counter(cls, name: str) -> "Behaviour":
        """A counter, as ``SCHEME:NAME``, for example ``habits:verification``.

        Raises:
            ProbeError: if there is no such scheme or name, or the scheme counts in whole answers and not in sentences.
        """
        scheme, _, wanted = name.partition(":")
        if scheme not in SCHEMES:
            raise ProbeError(f"behaviour is {name!r}: write SCHEME:NAME; {nearest(scheme, SCHEMES)}")
        rules = SCHEMES[scheme]
        if wanted not in rules.names:
            raise ProbeError(f"the scheme {scheme} counts no {wanted!r}; {nearest(wanted, rules.names)}")
        mark = rules.mark
        if mark is None:
            raise ProbeError(f"the scheme {scheme} counts in whole answers, not in sentences; use another scheme")
        if rules.in_order:
            return cls(name, "counter", lambda traces: [[wanted in found for found in mark(_texts(t))] for t in traces])
        return cls._of_texts(name, "counter", lambda text: wanted in mark([text])[0])

    @classmethod
    def of_category(cls, taxonomy: Taxonomy, which: int | str, model: Model) -> "Behaviour":
        """A category of a taxonomy, by its number or its name.

        Args:
            taxonomy: names that people gave in ``behaviours.yaml`` count, and so do merges.
            which: the number or the name.
            model: the model that the taxonomy reads; it reads every text in which sentences are marked.

        Raises:
            ProbeError: if there is no such category, or the model has no such site.
        """
        names = taxonomy.names
        if isinstance(which, str) and which.isdecimal():
            which = int(which)
        if isinstance(which, str) and which not in names:
            raise ProbeError(f"the taxonomy has no behaviour {which!r}; {nearest(which, names)}")
        if isinstance(which, int) and not 0 <= which < len(names):
            raise ProbeError(f"the taxonomy has no behaviour {which}; its numbers are 0 to {len(names) - 1}")
        number = which if isinstance(which, int) else names.index(which)

        def mark(traces: Sequence[Trace]) -> Marks:
            held = traces if isinstance(traces, Traces) else Traces(model.name, "", list(traces))
            found = annotate(taxonomy, held, harvest(model, held, [taxonomy.site]))
            return [[behaviour == number for behaviour in row] for row in found.behaviours]

        return cls(names[number], "category", mark)

    @classmethod
    def _of_texts(
        cls, name: str, source: Literal["category", "counter", "type"], text: Callable[[str], bool]
    ) -> "Behaviour":
        return cls(name, source, lambda traces: [[text(sentence) for sentence in _texts(t)] for t in traces], text)

    def shows(self, sentence: str) -> bool:
        """Whether a sentence shows the behaviour, by its text alone.

        Raises:
            ProbeError: if that cannot be told without the trace it is in; use :meth:`marks`.
        """
        if self.text is None:
            raise ProbeError(f"telling whether a sentence shows {self.name!r} takes its whole trace: use marks")
        return self.text(sentence)

    def marks(self, traces: Sequence[Trace], *, required: bool = False) -> Marks:
        """For each trace, whether each of its sentences shows the behaviour.

        Args:
            required: refuse traces in which no sentence shows it.

        Raises:
            ProbeError: if ``required`` and no sentence shows it.
        """
        found = self.mark(traces)
        if required and not any(map(any, found)):
            raise ProbeError(f"no sentence of these {len(traces)} traces shows {self.name!r}: name another behaviour")
        return found

    def __repr__(self) -> str:
        return f"Behaviour({self.name!r}, {self.source})"


def find_behaviour(
    name: int | str,
    *,
    problem_set: ProblemSet | None = None,
    taxonomy: Taxonomy | None = None,
    model: Model | None = None,
) -> Behaviour:
    """The behaviour that a name stands for, as commands and notebooks write it.

    Args:
        name: the number or name of a taxonomy's category; ``SCHEME:NAME`` for a counter; or a type of sentence.
        problem_set: whose types of sentence may be named.
        taxonomy: whose categories may be named, with the ``model`` that it reads. If given, a name that is a category
            of it stands for that.
        model: the model that the taxonomy reads.

    Raises:
        ProbeError: if nothing has that name; the message names the nearest that exists.
    """
    text = str(name)
    if taxonomy is not None and (text.isdecimal() or text in taxonomy.names or ":" not in text):
        if model is None:
            raise ProbeError("a category of a taxonomy needs the model that the taxonomy reads: pass model as well")
        if text.isdecimal() or text in taxonomy.names or problem_set is None or problem_set.sentence_type is None:
            return Behaviour.of_category(taxonomy, name, model)
    if ":" in text:
        return Behaviour.of_counter(text)
    if text.isdecimal():
        raise ProbeError(f"behaviour {text} is the number of a category: name the run or the taxonomy that has it")
    if problem_set is None:
        raise ProbeError(f"behaviour is {text!r}: write SCHEME:NAME, or give the problem set or taxonomy that has it")
    return Behaviour.of_type(problem_set, text)


def _texts(trace: Trace) -> list[str]:
    return [trace.sentence_text(sentence) for sentence in trace.sentences]

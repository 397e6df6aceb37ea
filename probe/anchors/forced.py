"""Forced answers: the accuracy if the thinking is cut off after each sentence."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Unpack

from probe.anchors.answers import answer_clusters
from probe.anchors.rollouts import Continuations, RolloutSettings, roll_out
from probe.errors import ProbeError
from probe.html import html_table
from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.traces import Sentence, Trace


@dataclass(frozen=True)
class ForcedAnswers:
    """The accuracy of forced answers along one trace.

    Attributes:
        sentences: the text of each sentence of the thinking.
        accuracy: accuracy of answers forced after the first 0, 1, 2 … sentences, up to all of them; NaN where none
            could be graded.
        answers: the most common answer at each place; answers that the grader calls equal count as one.
        agreement: the share of answers that say the same as that of the trace, which needs no known answer; NaN if the
            trace has none.
        after: how many sentences were kept at each place.
    """

    sentences: tuple[str, ...]
    accuracy: tuple[float, ...]
    answers: tuple[str | None, ...]
    agreement: tuple[float, ...]
    after: tuple[int, ...]

    def first(self, above: float = 0.5) -> int | None:
        """The number of sentences after which thinking could have stopped; None if accuracy never exceeds ``above``."""
        return next((n for n, share in zip(self.after, self.accuracy, strict=True) if share > above), None)

    def settled(self, above: float = 0.5) -> int | None:
        """The number of sentences after which the answer of the trace is given from then on; None if it never is."""
        last = next((i for i in reversed(range(len(self.after))) if not self.agreement[i] > above), -1)
        return self.after[last + 1] if last + 1 < len(self.after) else None

    def _repr_html_(self) -> str:
        texts = ("", *self.sentences)
        columns = zip((texts[n] for n in self.after), self.accuracy, self.agreement, self.answers, strict=True)
        rows = [(text, *map(_percent, (share, agree)), answer) for text, share, agree, answer in columns]
        return html_table(("after", "accuracy", "agrees with the trace", "most common answer"), rows)

    def __repr__(self) -> str:
        return f"ForcedAnswers({len(self.sentences)} sentences, right after {self.first()})"


def forced_answers(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    *,
    closing: str | None = None,
    every: int = 1,
    **how: Unpack[RolloutSettings],
) -> ForcedAnswers:
    """Close the thinking of a trace after 0, 1, 2 … sentences, and let the model answer at once.

    An et al., *Don't Think Longer, Think Wisely* (2505.21765), stop thinking where this accuracy first exceeds a
    threshold.

    Args:
        problem_set: grades the answers.
        closing: text that is put after the kept sentences and leads the model to an answer; None for the closing tag of
            the trace and "The answer is".
        every: force an answer after every so many sentences, and after the last one.
        **how: how answers are sampled, see :class:`RolloutSettings`; by default 16 samples of at most 12 tokens.
    """
    thinking, places = forced_places(trace, every)
    if closing is None:
        closing = usual_closing(trace)
    settings = RolloutSettings(n_samples=16, max_new_tokens=12) | how
    kept = [0 if not n else thinking[n - 1].token_end for n in places]
    found = roll_out(model, problem_set, problem, trace, places=kept, forced=closing, **settings)
    return forced_of(problem_set, problem, trace, places, found)


def usual_closing(trace: Trace) -> str:
    """The text that closes the thinking of a trace and leads to an answer."""
    return f" {trace.think_tags.close} The answer is"


def forced_places(trace: Trace, every: int = 1) -> tuple[list[Sentence], list[int]]:
    """The sentences of the thinking, and the numbers of them after which an answer is forced.

    Raises:
        ProbeError: if ``every`` is below 1.
    """
    if every < 1:
        raise ProbeError(f"every is {every}; answers are forced after every so many sentences, at least 1")
    thinking = [sentence for sentence in trace.sentences if trace.think_end is None or sentence.start < trace.think_end]
    if trace.think_end is not None and len(thinking) > 1:
        thinking = thinking[:-1]  # the last one contains the tag that closes the thinking
    return thinking, sorted({*range(0, len(thinking) + 1, every), len(thinking)})


def forced_of(
    problem_set: ProblemSet, problem: Problem, trace: Trace, places: Sequence[int], found: Sequence[Continuations]
) -> ForcedAnswers:
    """As :func:`forced_answers`, from rollouts that are there already.

    Args:
        problem_set, problem, trace: see there.
        places: the number of sentences that are kept at each place.
        found: the rollouts of each place.
    """
    thinking, _ = forced_places(trace)
    names = answer_clusters(problem_set, problem, [trace.answer, *(each for some in found for each in some.answers)])

    def agree(some: Continuations) -> float:
        if trace.answer is None or not len(some):
            return nan
        return sum(names[each] == names[trace.answer] for each in some.answers) / len(some)

    return ForcedAnswers(
        tuple(trace.sentence_text(sentence) for sentence in thinking),
        tuple(each.accuracy for each in found),
        tuple(_common([names[answer] for answer in each.answers]) for each in found),
        tuple(map(agree, found)),
        tuple(places),
    )


def _common(answers: Sequence[str | None]) -> str | None:
    """The most common answer; of several, the first one."""
    return Counter(answers).most_common(1)[0][0] if answers else None


def _percent(share: float) -> str | None:
    return None if isnan(share) else f"{share:.0%}"

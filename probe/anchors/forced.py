"""Forced answers: the accuracy if the thinking is cut off after each sentence."""

from dataclasses import dataclass
from math import isnan
from typing import Unpack

from probe.anchors.rollouts import RolloutSettings, roll_out
from probe.html import html_table
from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.traces import Trace


@dataclass(frozen=True)
class ForcedAnswers:
    """The accuracy of forced answers along one trace.

    Attributes:
        sentences: the text of each sentence of the thinking.
        accuracy: accuracy of answers forced after the first 0, 1, 2 … sentences, up to all of them; NaN where none
            could be graded.
        answers: the most common answer at each place.
    """

    sentences: tuple[str, ...]
    accuracy: tuple[float, ...]
    answers: tuple[str | None, ...]

    def first(self, above: float = 0.5) -> int | None:
        """The number of sentences after which thinking could have stopped; None if accuracy never exceeds ``above``."""
        return next((i for i, share in enumerate(self.accuracy) if share > above), None)

    def _repr_html_(self) -> str:
        columns = zip(("", *self.sentences), self.accuracy, self.answers, strict=True)
        rows = [(text, None if isnan(share) else f"{share:.0%}", answer) for text, share, answer in columns]
        return html_table(("after", "accuracy", "most common answer"), rows)

    def __repr__(self) -> str:
        return f"ForcedAnswers({len(self.sentences)} sentences, right after {self.first()})"


def forced_answers(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    *,
    closing: str | None = None,
    **how: Unpack[RolloutSettings],
) -> ForcedAnswers:
    """Close the thinking of a trace after 0, 1, 2 … sentences, and let the model answer at once.

    An et al., *Don't Think Longer, Think Wisely* (2505.21765), stop thinking where this accuracy first exceeds a
    threshold.

    Args:
        problem_set: grades the answers.
        closing: text that is put after the kept sentences and leads the model to an answer; None for the closing tag of
            the trace and "The answer is".
        **how: how answers are sampled, see :class:`RolloutSettings`; by default 16 samples of at most 12 tokens.
    """
    thinking = [sentence for sentence in trace.sentences if trace.think_end is None or sentence.start < trace.think_end]
    if trace.think_end is not None and len(thinking) > 1:
        thinking = thinking[:-1]  # the last one contains the tag that closes the thinking
    places = [0, *(sentence.token_end for sentence in thinking)]
    if closing is None:
        closing = f" {trace.think_tags.close} The answer is"
    settings = RolloutSettings(n_samples=16, max_new_tokens=12) | how
    found = roll_out(model, problem_set, problem, trace, places=places, forced=closing, **settings)
    common = tuple(max(set(each.answers), key=each.answers.count) for each in found)
    texts = tuple(trace.sentence_text(sentence) for sentence in thinking)
    return ForcedAnswers(texts, tuple(each.accuracy for each in found), common)

"""Forced answers: how often the answer is right already, if the thinking were cut off after each sentence."""

from dataclasses import dataclass
from html import escape

from probe.anchors.rollouts import roll_out
from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.traces import Trace


@dataclass(frozen=True)
class ForcedAnswers:
    """The curve of one trace.

    Attributes:
        sentences: their texts.
        accuracy: of answers that were forced after the first so many sentences, from none to all of the thinking.
        answers: the commonest answer at each place.
    """

    sentences: tuple[str, ...]
    accuracy: tuple[float, ...]
    answers: tuple[str | None, ...]

    def first(self, above: float = 0.5) -> int | None:
        """After how many sentences thinking could have stopped: the first place at which so many answers are right."""
        return next((i for i, share in enumerate(self.accuracy) if share > above), None)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(text)}</td><td>{share:.0%}</td><td>{escape(str(answer))}</td></tr>"
            for text, share, answer in zip(("", *self.sentences), self.accuracy, self.answers, strict=False)
        )
        return f"<table><tr><th>after</th><th>right</th><th>commonest</th></tr>{rows}</table>"


def forced_answers(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    *,
    closing: str = " </think> The answer is",
    samples: int = 16,
    max_new_tokens: int = 12,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    progress: bool = False,
) -> ForcedAnswers:
    """Close the thinking after every sentence of a trace and let the model answer at once.

    An et al., *Don't Think Longer, Think Wisely* (2505.21765), cut where this first rises above a threshold.

    Args:
        closing: what is put after the sentences that are kept; it must lead the model to an answer.
        samples: answers at each place.
        seed: of the draws.
        progress: show a bar.
    """
    thinking = [sentence for sentence in trace.sentences if trace.think_end is None or sentence.start < trace.think_end]
    if trace.think_end is not None and len(thinking) > 1:
        thinking = thinking[:-1]  # the last of them holds the tag that closes the thinking
    places = [0, *(sentence.token_end for sentence in thinking)]
    found = roll_out(
        model,
        problem_set,
        problem,
        trace,
        places,
        samples=samples,
        max_new_tokens=max_new_tokens,
        forced=closing,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        progress=progress,
    )
    commonest = tuple(max(set(each.answers), key=each.answers.count) for each in found)
    texts = tuple(trace.sentence_text(sentence) for sentence in thinking)
    return ForcedAnswers(texts, tuple(each.accuracy for each in found), commonest)

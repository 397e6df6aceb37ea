"""Thought anchors: how much accuracy and answers change if another sentence is written in place of a sentence."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Unpack

from probe.anchors.rollouts import Continuations, RolloutSettings, roll_out
from probe.errors import ProbeError
from probe.models import Model, ThinkTags
from probe.problems import Problem, ProblemSet
from probe.traces import Trace, split_sentences

Alike = Callable[[str, str], bool]
"""Whether two sentences have the same meaning."""


@dataclass(frozen=True)
class Anchors:
    """The importance of each sentence of one trace.

    Attributes:
        sentences: the text of each sentence.
        accuracy: accuracy of rollouts that keep the first 0, 1, 2 … sentences, up to all but the last; NaN where none
            could be graded.
        importance: accuracy with the sentence minus accuracy of rollouts with another sentence in its place; NaN where
            every rollout wrote the same sentence, or none could be graded.
        shift: KL divergence in nats between the answers with the sentence and those with another in its place.
        others: number of rollouts that wrote another sentence.
    """

    sentences: tuple[str, ...]
    accuracy: tuple[float, ...]
    importance: tuple[float, ...]
    shift: tuple[float, ...]
    others: tuple[int, ...]

    def strongest(self, n: int = 3) -> list[int]:
        """The indices of the ``n`` sentences with the largest absolute importance.

        Where the answer of the problem is not known, those with the largest shift.
        """
        graded = any(not math.isnan(each) for each in self.accuracy)
        values = self.importance if graded else self.shift
        known = [i for i, value in enumerate(values) if not math.isnan(value)]
        return sorted(known, key=lambda i: -abs(values[i]))[:n]

    def __repr__(self) -> str:
        return f"Anchors({len(self.sentences)} sentences, strongest: {self.strongest()})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<span style="background:{_shade(value)}" title="{value:+.2f}, {shift:.2f} nats">{escape(text)}</span>'
            for text, value, shift in zip(self.sentences, self.importance, self.shift, strict=False)
        )
        rest = escape("".join(self.sentences[len(self.importance) :]))
        said = "blue: raises accuracy · orange: lowers it"
        return f'<p style="line-height:1.9;white-space:pre-wrap">{rows}{rest}</p><p>{said}</p>'


def thought_anchors(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    *,
    alike: Alike | None = None,
    **how: Unpack[RolloutSettings],
) -> Anchors:
    """Measure the importance of each sentence by rollouts that keep it and rollouts that write another one.

    Bogdan et al., *Thought Anchors* (2506.19143). They consider two sentences the same if the cosine of their
    embeddings is at least 0.8. Here ``alike`` decides, because embeddings hardly distinguish "22 + 9 = 31" from
    "22 + 9 = 32".

    Args:
        model: the model that continues the trace, which any model may have written.
        problem_set: grades the answers.
        alike: rollouts whose sentence is alike are left out of the comparison (counterfactual importance); None
            compares with all rollouts (resampling importance).
        **how: how rollouts are sampled, see :class:`RolloutSettings`; by default 50 samples of at most 256 tokens. The
            paper uses 100 samples and ``Sampling(temperature=0.6, top_p=0.95)``.

    Returns:
        Importance and shift of all sentences but the last, which nothing follows.

    Raises:
        ProbeError: if the trace has fewer than two sentences.
    """
    if len(trace.sentences) < 2:
        raise ProbeError("thought anchors need a trace of at least two sentences; this one has fewer")
    places = [sentence.token_start for sentence in trace.sentences]
    settings = RolloutSettings(n_samples=50, max_new_tokens=256) | how
    found = roll_out(model, problem_set, problem, trace, places=places, **settings)
    importance, shift, others = [], [], []
    for i in range(len(places) - 1):
        kept, text = found[i + 1], trace.sentence_text(trace.sentences[i])
        other = _others(found[i], text, alike, trace.think_tags)
        others.append(len(other))
        importance.append(kept.accuracy - other.accuracy if len(other) else math.nan)
        shift.append(_divergence(kept, other) if len(other) else math.nan)
    texts = tuple(trace.sentence_text(sentence) for sentence in trace.sentences)
    return Anchors(texts, tuple(each.accuracy for each in found), tuple(importance), tuple(shift), tuple(others))


def _others(rollouts: Continuations, text: str, alike: Alike | None, tags: ThinkTags) -> Continuations:
    """The rollouts whose first sentence is not alike."""
    if alike is None:
        return rollouts
    some = []
    for i, written in enumerate(rollouts.texts):
        spans = split_sentences(written, tags)
        if not spans or not alike(written[slice(*spans[0])], text):
            some.append(i)
    return rollouts[some]


def _divergence(kept: Continuations, other: Continuations) -> float:
    answers = sorted({*kept.answers, *other.answers}, key=str)
    pairs = zip(kept.shares(answers), other.shares(answers), strict=True)
    return sum(p * math.log(p / q) for p, q in pairs)


def _shade(value: float) -> str:
    if math.isnan(value):
        return "transparent"
    colour = "47,127,193" if value > 0 else "200,100,30"
    return f"rgba({colour},{min(1.0, abs(value)):.2f})"

"""Thought anchors: how much accuracy and answers change if another sentence is written in place of a sentence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Unpack

from probe.anchors.alike import Alike, say_the_same
from probe.anchors.answers import Shift, accuracy_difference, answer_clusters, answer_shift, q_values
from probe.anchors.rollouts import Continuations, RolloutSettings, roll_out
from probe.errors import ProbeError
from probe.models import Model, ThinkTags
from probe.problems import Problem, ProblemSet
from probe.statistics import Interval
from probe.traces import Trace, split_sentences

FOUND = 0.05
"""The false discovery rate below which a sentence is said to change the answers."""


@dataclass(frozen=True)
class Anchors:
    """The importance of each sentence of one trace.

    Attributes:
        sentences: the text of each sentence.
        accuracy: accuracy of rollouts that keep the first 0, 1, 2 … sentences, up to all but the last; NaN where none
            could be graded.
        effects: accuracy with each sentence minus accuracy of rollouts with another sentence in its place, with its
            interval; without a value where every rollout wrote the same sentence, or none could be graded.
        shifts: how far the sentence changes the distribution of answers, which needs no known answer.
        others: number of rollouts that wrote another sentence.
        back: of those, the share that says the sentence later; NaN where there are none, or ``alike`` is not given.
        gone: as ``shifts``, against those rollouts alone that never say the sentence.
    """

    sentences: tuple[str, ...]
    accuracy: tuple[float, ...]
    effects: tuple[Interval, ...]
    shifts: tuple[Shift, ...]
    others: tuple[int, ...]
    back: tuple[float, ...]
    gone: tuple[Shift, ...]

    @property
    def importance(self) -> tuple[float, ...]:
        """The value of each of ``effects``; NaN where there is none."""
        return tuple(_value(each) for each in self.effects)

    @property
    def shift(self) -> tuple[float, ...]:
        """The divergence of each of ``shifts`` in nats; NaN where there is none."""
        return tuple(_value(each.divergence) for each in self.shifts)

    @property
    def q(self) -> tuple[float, ...]:
        """The false discovery rate at which each sentence changes the answers; NaN where nothing was compared."""
        found = q_values({i: each.p for i, each in enumerate(self.shifts)})
        return tuple(found.get(i, math.nan) for i in range(len(self.shifts)))

    def strongest(self, n: int = 3) -> list[int]:
        """The indices of the ``n`` sentences with the largest absolute importance.

        Where the answer of the problem is not known, those with the largest shift.
        """
        values = self.importance if self.graded else self.shift
        known = [i for i, value in enumerate(values) if not math.isnan(value)]
        return sorted(known, key=lambda i: -abs(values[i]))[:n]

    @property
    def graded(self) -> bool:
        """Whether the right answer is known."""
        return any(not math.isnan(each) for each in self.accuracy)

    def __repr__(self) -> str:
        return f"Anchors({len(self.sentences)} sentences, strongest: {self.strongest()})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<span style="background:{_shade(value if self.graded else shift)}" '
            f'title="{f"{value:+.2f}, " if self.graded else ""}{shift:.2f} nats">{escape(text)}</span>'
            for text, value, shift in zip(self.sentences, self.importance, self.shift, strict=False)
        )
        rest = escape("".join(self.sentences[len(self.effects) :]))
        said = "blue: raises accuracy · orange: lowers it" if self.graded else "blue: changes the answers"
        return f'<p style="line-height:1.9;white-space:pre-wrap">{rows}{rest}</p><p>{said}</p>'


def thought_anchors(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    *,
    alike: Alike | None = say_the_same,
    **how: Unpack[RolloutSettings],
) -> Anchors:
    """Measure the importance of each sentence by rollouts that keep it and rollouts that write another one.

    Bogdan et al., *Thought Anchors* (2506.19143). They consider two sentences the same if the cosine of their
    embeddings is at least 0.8. Here ``alike`` decides, because embeddings hardly distinguish "22 + 9 = 31" from
    "22 + 9 = 32"; :func:`~probe.anchors.say_the_same`, the default, needs no model.

    Args:
        model: the model that continues the trace, which any model may have written.
        problem_set: grades the answers.
        alike: rollouts whose sentence is alike are left out of the comparison (counterfactual importance); None
            compares with all rollouts (resampling importance). Then no rollout counts at two places, because both sides
            of a comparison must be independent.
        **how: how rollouts are sampled, see :class:`RolloutSettings`; by default 50 samples of at most 256 tokens. The
            paper uses 100 samples and ``Sampling(temperature=0.6, top_p=0.95)``.

    Returns:
        Importance and shift of all sentences but the last, which nothing follows.

    Raises:
        ProbeError: if the trace has fewer than two sentences, or rollouts are reused without ``alike``.
    """
    places = sentence_places(trace)
    settings = RolloutSettings(n_samples=50, max_new_tokens=256) | how
    if alike is None and settings.setdefault("reuse", False):
        raise ProbeError("with alike=None both sides share the rollouts that reuse counts twice; leave out reuse")
    found = roll_out(model, problem_set, problem, trace, places=places, **settings)
    return anchors_of(
        problem_set,
        problem,
        trace.sentence_texts,
        found,
        alike=alike,
        think_tags=trace.think_tags,
        seed=settings.get("seed", 0),
    )


def sentence_places(trace: Trace) -> list[int]:
    """The number of tokens before each sentence of a trace.

    Raises:
        ProbeError: if the trace has fewer than two sentences.
    """
    if len(trace.sentences) < 2:
        raise ProbeError("thought anchors need a trace of at least two sentences; this one has fewer")
    return [sentence.token_start for sentence in trace.sentences]


def anchors_of(
    problem_set: ProblemSet,
    problem: Problem,
    sentences: Sequence[str],
    rollouts: Sequence[Continuations],
    *,
    alike: Alike | None = say_the_same,
    think_tags: ThinkTags | None = None,
    seed: int = 0,
) -> Anchors:
    """As :func:`thought_anchors`, from rollouts that are there already.

    Args:
        problem_set: its grader says which answers are the same.
        problem: the problem of the trace.
        sentences: the text of each sentence.
        rollouts: the rollouts that begin in place of each sentence.
        alike: see there. None is for rollouts that were sampled without ``reuse``.
        think_tags: the tags around the thinking, by which rollouts are split into sentences.
        seed: seeds permutations and bootstraps.
    """
    tags = think_tags or ThinkTags()
    clusters = answer_clusters(problem_set, problem, [answer for each in rollouts for answer in each.answers])
    answers = [[clusters[answer] for answer in each.answers] for each in rollouts]
    effects, shifts, others, back, gone = [], [], [], [], []
    for i in range(len(rollouts) - 1):
        other, absent = apart(rollouts[i], sentences[i], alike, tags)
        effects.append(accuracy_difference(rollouts[i + 1].correct, [rollouts[i].correct[k] for k in other]))
        shifts.append(answer_shift(answers[i + 1], [answers[i][k] for k in other], seed=seed))
        others.append(len(other))
        back.append(1 - len(absent) / len(other) if other and alike else math.nan)
        gone.append(answer_shift(answers[i + 1], [answers[i][k] for k in absent], seed=seed) if alike else shifts[-1])
    accuracy = tuple(each.accuracy for each in rollouts)
    return Anchors(
        sentences=tuple(sentences),
        accuracy=accuracy,
        effects=tuple(effects),
        shifts=tuple(shifts),
        others=tuple(others),
        back=tuple(back),
        gone=tuple(gone),
    )


def apart(rollouts: Continuations, text: str, alike: Alike | None, tags: ThinkTags) -> tuple[list[int], list[int]]:
    """The rollouts whose first sentence is not alike, and those of them in which no later one is.

    Args:
        rollouts: the rollouts in place of a sentence.
        text: the sentence.
        alike: whether two sentences say the same; None if all rollouts are compared.
        tags: the tags around the thinking.
    """
    if alike is None:
        return list(range(len(rollouts))), list(range(len(rollouts)))
    other, absent = [], []
    whole = text.strip()  # a token may hold the end of a sentence and the space before the next one
    for i, written in enumerate(rollouts.texts):
        if whole and written.lstrip().startswith(whole):  # it may count at the next place too
            continue
        said = [written[slice(*span)] for span in split_sentences(written, tags)]
        first = rollouts.firsts[i] if rollouts.firsts else "".join(said[:1])
        if first and alike(first, text):
            continue
        other.append(i)
        if not any(alike(each, text) for each in said):
            absent.append(i)
    return other, absent


def _value(interval: Interval) -> float:
    return math.nan if interval.value is None else interval.value


def _shade(value: float) -> str:
    if math.isnan(value):
        return "transparent"
    colour = "47,127,193" if value > 0 else "200,100,30"
    return f"rgba({colour},{min(1.0, abs(value)):.2f})"

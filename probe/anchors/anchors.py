"""Thought anchors: how much the answer changes if the model had written another sentence in a sentence's place."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from probe.anchors.rollouts import Rollouts, roll_out
from probe.errors import ProbeError
from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.traces import Trace, split_sentences

Alike = Callable[[str, str], bool]
"""Whether two sentences say the same."""


@dataclass(frozen=True)
class Anchors:
    """The importance of each sentence of one trace.

    Attributes:
        sentences: their texts.
        accuracy: of rollouts that keep the first so many sentences, from none to all but the last.
        importance: by how much accuracy rises with the sentence, against rollouts that wrote another one in its place;
            negative for one that does harm. NaN where every rollout wrote the same.
        shift: by how much it shifts what is answered: the KL divergence of the two distributions of answers, in nats.
        others: how many rollouts wrote another sentence.
    """

    sentences: tuple[str, ...]
    accuracy: tuple[float, ...]
    importance: tuple[float, ...]
    shift: tuple[float, ...]
    others: tuple[int, ...]

    def strongest(self, n: int = 3) -> list[int]:
        """The sentences of the largest importance, either sign."""
        known = [i for i, value in enumerate(self.importance) if not math.isnan(value)]
        return sorted(known, key=lambda i: -abs(self.importance[i]))[:n]

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<span style="background:{_shade(value)}" title="{value:+.2f}, {shift:.2f} nats">{escape(text)}</span>'
            for text, value, shift in zip(self.sentences, self.importance, self.shift, strict=False)
        )
        rest = escape("".join(self.sentences[len(self.importance) :]))
        return f'<p style="line-height:1.9">{rows}{rest}</p><p>blue: raises accuracy · orange: lowers it</p>'


def thought_anchors(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    *,
    samples: int = 50,
    max_new_tokens: int = 256,
    alike: Alike | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    progress: bool = False,
) -> Anchors:
    """Roll out from the start of every sentence, and compare what comes of keeping it with what comes of another.

    Bogdan et al., *Thought Anchors* (2506.19143). They take two sentences for the same where an embedding model finds a
    cosine of 0.8 or more; what tells "22 + 9 = 31" from "22 + 9 = 32" is up to the task, so it is a function here.

    Args:
        model: goes on with the trace, whoever wrote it.
        trace: of this problem.
        samples: rollouts from each place; the paper takes 100.
        alike: leaves out of the comparison what says the same (counterfactual importance); None compares with all that
            the model would have written (resampling importance).
        temperature, top_p: of the sampling; the paper takes 0.6 and 0.95.
        seed: of the draws.
        progress: show a bar.

    Returns:
        Of all sentences but the last, after which there is nothing left to write.

    Raises:
        ProbeError: if the trace has fewer than two sentences.
    """
    if len(trace.sentences) < 2:
        raise ProbeError("a trace of one sentence has none that could matter to what comes after it")
    places = [sentence.token_start for sentence in trace.sentences]
    found = roll_out(
        model,
        problem_set,
        problem,
        trace,
        places,
        samples=samples,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        progress=progress,
    )
    importance, shift, others = [], [], []
    for i in range(len(places) - 1):
        kept, text = found[i + 1], trace.sentence_text(trace.sentences[i])
        other = _others(found[i], text, alike)
        others.append(len(other))
        importance.append(kept.accuracy - other.accuracy if len(other) else math.nan)
        shift.append(_divergence(kept, other) if len(other) else math.nan)
    texts = tuple(trace.sentence_text(sentence) for sentence in trace.sentences)
    return Anchors(texts, tuple(each.accuracy for each in found), tuple(importance), tuple(shift), tuple(others))


def _others(rollouts: Rollouts, text: str, alike: Alike | None) -> Rollouts:
    """The rollouts whose first sentence is another one."""
    if alike is None:
        return rollouts
    some = []
    for i, written in enumerate(rollouts.texts):
        spans = split_sentences(written)
        if not spans or not alike(written[slice(*spans[0])], text):
            some.append(i)
    return rollouts[some]


def _divergence(kept: Rollouts, other: Rollouts) -> float:
    answers = sorted({*kept.answers, *other.answers}, key=str)
    pairs = zip(kept.shares(answers), other.shares(answers), strict=True)
    return sum(p * math.log(p / q) for p, q in pairs)


def _shade(value: float) -> str:
    if math.isnan(value):
        return "transparent"
    colour = "47,127,193" if value > 0 else "200,100,30"
    return f"rgba({colour},{min(1.0, abs(value)):.2f})"

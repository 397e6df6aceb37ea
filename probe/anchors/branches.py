"""Thought branches: does a sentence come back if it is taken out, and what does an edit of it change?

Macar et al., *Thought Branches* (2510.27484).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Unpack

import numpy as np

from probe.anchors.alike import Alike, say_the_same
from probe.anchors.anchors import apart, sentence_places
from probe.anchors.answers import Shift, accuracy_difference, answer_clusters, answer_shift
from probe.anchors.rollouts import Continuations, RolloutSettings, continue_texts, roll_out
from probe.errors import ProbeError
from probe.html import html_table
from probe.models import Model, n_positions
from probe.problems import Problem, ProblemSet
from probe.statistics import Interval, mean_interval
from probe.traces import Trace, encode_after, random_key, sentences_of


@dataclass(frozen=True)
class Resilience:
    """How often a sentence must be resampled until its content stays away.

    Attributes:
        sentences: the text of each sentence that was taken out.
        numbers: the index of each of them in the trace.
        rounds: for each sentence and chain, the number of resamplings after which nothing alike was written; the
            limit plus one where it was written after every resampling.
        limit: the largest number of resamplings.
        final: for each sentence, the rollouts in which its content stayed away.
        given_up: for each sentence, how many of its chains were given up before the limit, because each resampling
            made them longer until they were as long as the trace and a rollout. They count as if it never stays away.
    """

    sentences: tuple[str, ...]
    numbers: tuple[int, ...]
    rounds: tuple[tuple[int, ...], ...]
    limit: int
    final: tuple[Continuations, ...] = field(repr=False)
    given_up: tuple[int, ...]

    @property
    def mean(self) -> tuple[Interval, ...]:
        """The mean number of resamplings of each sentence, with an interval over chains."""
        return tuple(mean_interval(np.array(each, dtype=float)) for each in self.rounds)

    @property
    def remains(self) -> tuple[float, ...]:
        """The share of chains in which each sentence was written after every resampling."""
        return tuple(sum(each > self.limit for each in some) / len(some) for some in self.rounds)

    def __repr__(self) -> str:
        return f"Resilience({len(self.sentences)} sentences, at most {self.limit} resamplings)"

    def _repr_html_(self) -> str:
        columns = zip(self.numbers, self.sentences, self.mean, self.remains, self.given_up, strict=True)
        rows = [
            (number, text, mean.write("{:.2f}".format), f"{remains:.0%}", given_up)
            for number, text, mean, remains, given_up in columns
        ]
        heads = ("", "sentence", "resamplings until it stays away", "never stays away", "given up as too long")
        return html_table(heads, rows)


def resilience(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    *,
    sentences: Sequence[int] | None = None,
    alike: Alike = say_the_same,
    limit: int = 10,
    **how: Unpack[RolloutSettings],
) -> Resilience:
    """Take a sentence out, and take it out again wherever its content comes back.

    Each chain continues the trace from the beginning of the sentence. Where a sentence that is alike comes, the chain
    is cut there and continued anew, until nothing alike is written or the limit is reached. A sentence that the model
    writes again and again matters more than a comparison of single rollouts shows.

    Args:
        model: the model that continues the trace.
        problem_set: grades the answers.
        sentences: the indices of the sentences; None for all but the last.
        alike: whether two sentences say the same.
        limit: the largest number of resamplings of a chain.
        **how: see :class:`RolloutSettings`; by default 10 samples (chains) of at most 256 tokens.

    Raises:
        ProbeError: if the trace has fewer than two sentences, or a sentence is not in it.
    """
    places = sentence_places(trace)
    some = list(range(len(places) - 1)) if sentences is None else list(sentences)
    for number in some:
        _check(trace, number)
    settings = RolloutSettings(n_samples=10, max_new_tokens=256) | how
    n, seed = settings.get("n_samples", 10), settings.get("seed", 0)
    longest = _longest(model, problem, trace, settings)
    texts = [trace.sentence_text(trace.sentences[number]) for number in some]
    kept = {(at, chain): list(trace.tokens[: places[number]]) for at, number in enumerate(some) for chain in range(n)}
    rounds, tried = dict.fromkeys(kept, limit + 1), dict.fromkeys(kept, 0)
    final: dict[tuple[int, int], Continuations] = {}
    for number in range(1, limit + 1):
        open_chains = [chain for chain in kept if chain not in final and len(kept[chain]) <= longest]
        once = settings | RolloutSettings(n_samples=1, seed=random_key("resilience", seed, number))
        if not open_chains:
            break
        texts_now = [kept[chain] for chain in open_chains]
        for at, ((tail,), found) in continue_texts(model, problem_set, problem, trace, texts_now, **once):
            chain = open_chains[at]
            tried[chain] = number
            cut = _comes(model, trace, kept[chain], tail, texts[chain[0]], alike)
            if cut is None:
                rounds[chain], final[chain] = number, found
            else:
                kept[chain] = [*kept[chain], *tail][:cut]
    return Resilience(
        tuple(texts),
        tuple(some),
        tuple(tuple(rounds[at, chain] for chain in range(n)) for at in range(len(some))),
        limit,
        tuple(
            _joined(places[number], [final[at, chain] for chain in range(n) if (at, chain) in final])
            for at, number in enumerate(some)
        ),
        tuple(
            sum((at, chain) not in final and tried[at, chain] < limit for chain in range(n)) for at in range(len(some))
        ),
    )


def _longest(model: Model, problem: Problem, trace: Trace, settings: RolloutSettings) -> int:
    """The largest number of tokens of a chain that is continued: those of the trace and of a rollout, if they fit."""
    new = settings.get("max_new_tokens", 256)
    servers = settings.get("servers")
    contexts = [n_positions(model.hf), None if servers is None else servers.context]
    room = [each - len(model.prompt_ids(problem.question)) - new for each in contexts if each is not None]
    return min([len(trace.tokens) + new, *room])


def _comes(model: Model, trace: Trace, kept: Sequence[int], tail: Sequence[int], text: str, alike: Alike) -> int | None:
    """The number of tokens before the first new sentence that is alike; None if there is none."""
    tokens = [*kept, *tail]
    whole = model.decode(tokens)
    for sentence in sentences_of(model, tokens, trace.think_tags):
        if sentence.token_start >= len(kept) and alike(whole[sentence.start : sentence.end], text):
            return sentence.token_start
    return None


def _joined(kept: int, some: Sequence[Continuations]) -> Continuations:
    return Continuations(
        kept,
        tuple(text for each in some for text in each.texts),
        tuple(answer for each in some for answer in each.answers),
        tuple(correct for each in some for correct in each.correct),
        cut=tuple(cut for each in some for cut in each.cut),
    )


@dataclass(frozen=True)
class Edit:
    """What sentences of one source change if they are put in place of a sentence.

    Attributes:
        source: the name of the source; ``own`` for the sentences that the model itself writes there (on-policy).
        sentences: the sentences.
        shift: how far the answers with the sentence of the trace differ from those with these sentences.
        effect: the accuracy with the sentence of the trace minus that with these.
    """

    source: str
    sentences: tuple[str, ...]
    shift: Shift
    effect: Interval

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>"


def edited(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    sentence: int,
    edits: dict[str, Sequence[str]],
    *,
    alike: Alike = say_the_same,
    **how: Unpack[RolloutSettings],
) -> list[Edit]:
    """Compare edits of a sentence that the model would not have written with its own other sentences.

    A sentence that is put into a trace by hand, or that another model wrote, takes the model off its policy; what it
    does then may say little about what its own sentences do. So every source is compared with the model's own
    resampled sentences.

    Args:
        model: the model that continues.
        problem_set: grades the answers.
        sentence: the index of the sentence, not the last one.
        edits: the sentences of each source, such as those of :func:`own_sentences` of the base model.
        alike: the model's own sentences that are alike are left out.
        **how: see :class:`RolloutSettings`; by default 50 samples of at most 256 tokens, for each source.

    Returns:
        The source ``own`` first, then those of ``edits``.

    Raises:
        ProbeError: if there is no such sentence, or a source has no sentences.
    """
    places = sentence_places(trace)
    _check(trace, sentence)
    for name, texts in edits.items():
        if not texts:
            raise ProbeError(f"the source {name!r} has no sentences to put in place of sentence {sentence}")
    settings = RolloutSettings(n_samples=50, max_new_tokens=256) | how
    n, seed, text = (
        settings.get("n_samples", 50),
        settings.get("seed", 0),
        trace.sentence_text(trace.sentences[sentence]),
    )
    own, kept = roll_out(
        model, problem_set, problem, trace, places=[places[sentence], places[sentence + 1]], **settings
    )
    other, _ = apart(own, text, alike, trace.think_tags)
    sources = {"own": (tuple(own.first(i, trace.think_tags) for i in other), own[other])}
    before = list(trace.tokens[: places[sentence]])
    for name, texts in edits.items():
        prompts = [[*before, *encode_after(before, each, model.decode, model.tokenizer)] for each in texts]
        each_n = RolloutSettings(n_samples=max(1, n // len(texts)))
        found = dict(continue_texts(model, problem_set, problem, trace, prompts, **(settings | each_n)))
        sources[name] = (tuple(texts), _joined(places[sentence], [found[i][1] for i in range(len(texts))]))
    rollouts = [kept, *(each for _, each in sources.values())]
    clusters = answer_clusters(problem_set, problem, [answer for each in rollouts for answer in each.answers])
    return [
        Edit(
            name,
            texts,
            answer_shift([clusters[a] for a in kept.answers], [clusters[a] for a in found.answers], seed=seed),
            accuracy_difference(kept.correct, found.correct),
        )
        for name, (texts, found) in sources.items()
    ]


def own_sentences(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    sentence: int,
    *,
    alike: Alike = say_the_same,
    **how: Unpack[RolloutSettings],
) -> list[str]:
    """The sentences that a model writes in place of one sentence, other than that sentence.

    Args:
        model: the model that writes, such as the base model, whose sentences are off-policy for the thinking model.
        problem_set, problem, trace: as in :func:`edited`.
        sentence: the index of the sentence.
        alike: sentences that are alike are left out.
        **how: see :class:`RolloutSettings`; by default 10 samples of at most 64 tokens.

    Raises:
        ProbeError: if there is no such sentence.
    """
    _check(trace, sentence)
    settings = RolloutSettings(n_samples=10, max_new_tokens=64) | how
    place = trace.sentences[sentence].token_start
    (found,) = roll_out(model, problem_set, problem, trace, places=[place], **settings)
    text = trace.sentence_text(trace.sentences[sentence])
    firsts = (found.first(i, trace.think_tags) for i in range(len(found)))
    return list(dict.fromkeys(first for first in firsts if first.strip() and not alike(first, text)))


def _check(trace: Trace, sentence: int) -> None:
    if not 0 <= sentence < len(trace.sentences) - 1:
        raise ProbeError(
            f"there is no sentence {sentence} that another follows; the trace has {len(trace.sentences)} sentences"
        )

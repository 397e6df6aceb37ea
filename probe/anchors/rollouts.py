"""Rollouts from many places of a trace, each graded as a whole text; the other files of this room build on them.

The trace is run once for all places (see :func:`~probe.traces.sample_branches`), or a server continues it.
"""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import TypedDict, Unpack

from probe.hooks import TokenForwards
from probe.models import Model, Sampling, ThinkTags
from probe.problems import Problem, ProblemSet
from probe.progress import progress_bar
from probe.servers import Servers
from probe.traces import PLAIN, Trace, encode_after, sample_branches, served_samples, split_sentences, texts_after

_SAMPLES, _TOKENS = 50, 256
"""The usual number of samples of a place, and their largest number of tokens."""


class RolloutSettings(TypedDict, total=False):
    """Settings of rollouts; the functions of this room take these as keyword arguments."""

    n_samples: int
    """Number of continuations of each place."""
    max_new_tokens: int
    """The largest number of tokens of a continuation."""
    sampling: Sampling
    """How tokens are sampled; from the whole distribution by default."""
    seed: int
    """Seeds the sampling; 0 by default."""
    progress: bool
    """Show a progress bar; False by default."""
    servers: Servers | None
    """Servers of the model that write the rollouts, from :func:`~probe.traces.open_servers`; by default the model does
    it here."""
    reuse: bool
    """Let a rollout that writes the trace as far as the next place count there too, which needs fewer of them; True by
    default. Rollouts of one place are independent in any case."""
    spent: TokenForwards | None
    """Counts the tokens that the model runs here."""


@dataclass(frozen=True)
class Continuations:
    """Sampled continuations of the first tokens of a trace.

    Attributes:
        kept: number of tokens of the trace that are kept; None where only its text is known.
        texts: the text of each continuation.
        answers: the answer of each whole text; None if it has none.
        correct: whether each answer is right; None if it could not be graded.
        firsts: the first sentence of each, where it is known from elsewhere; else the texts are split.
        cut: whether the limit on tokens stopped each, so that it may have no answer yet; empty where that is not known.
    """

    kept: int | None
    texts: tuple[str, ...]
    answers: tuple[str | None, ...]
    correct: tuple[bool | None, ...]
    firsts: tuple[str, ...] = ()
    cut: tuple[bool, ...] = ()

    def __getitem__(self, some: Sequence[int]) -> "Continuations":
        """The continuations at some indices."""
        return Continuations(
            self.kept,
            tuple(self.texts[i] for i in some),
            tuple(self.answers[i] for i in some),
            tuple(self.correct[i] for i in some),
            tuple(self.firsts[i] for i in some) if self.firsts else (),
            tuple(self.cut[i] for i in some) if self.cut else (),
        )

    def first(self, i: int, think_tags: ThinkTags) -> str:
        """The first sentence of a continuation; empty if it has none."""
        if self.firsts:
            return self.firsts[i]
        spans = split_sentences(self.texts[i], think_tags)
        return self.texts[i][slice(*spans[0])] if spans else ""

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        accuracy = f", accuracy {self.accuracy:.2f}" if len(self) else ""
        after = "" if self.kept is None else f" after {self.kept} tokens"
        return f"Continuations({len(self)}{after}{accuracy})"

    @property
    def accuracy(self) -> float:
        """The share of right answers among those that could be graded; NaN if there are none."""
        graded = [each for each in self.correct if each is not None]
        return sum(graded) / len(graded) if graded else float("nan")


def roll_out(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    *,
    places: Sequence[int],
    forced: str = "",
    **how: Unpack[RolloutSettings],
) -> list[Continuations]:
    """Continue a trace from some of its places, and grade each whole text.

    Args:
        model: the model that continues, with its own prompt before the trace.
        problem_set: grades the answers.
        trace: the trace, written by any model; rollouts are graded by its think tags.
        places: for each place, the number of tokens of the trace that are kept.
        forced: text that is put after the kept tokens, for example to close the thinking.
        **how: see :class:`RolloutSettings`; by default 50 samples of at most 256 tokens.

    Returns:
        The rollouts of each place.
    """
    found = dict(stream_rollouts(model, problem_set, problem, trace, places=places, forced=forced, **how))
    return [found[at] for at in range(len(places))]


def stream_rollouts(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    *,
    places: Sequence[int],
    forced: str = "",
    skip: Set[int] = frozenset(),
    **how: Unpack[RolloutSettings],
) -> Iterator[tuple[int, Continuations]]:
    """As :func:`roll_out`, one place at a time, so that no more is held than the places in work.

    Args:
        model, problem_set, problem, trace, places, forced: see there.
        skip: indices of places whose rollouts are not wanted; those of the others do not change.
        **how: see there.

    Yields:
        The index of a place, and its rollouts, as soon as the last of them has ended.
    """
    cut = [trace.tokens[:place] for place in places]
    kept = [[*tokens, *encode_after(tokens, forced, model.decode, model.tokenizer)] for tokens in cut]
    for at, (_, found) in continue_texts(model, problem_set, problem, trace, kept, skip=skip, **how):
        yield at, replace(found, kept=places[at])


def continue_texts(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    kept: Sequence[Sequence[int]],
    *,
    skip: Set[int] = frozenset(),
    **how: Unpack[RolloutSettings],
) -> Iterator[tuple[int, tuple[list[list[int]], Continuations]]]:
    """Continue texts that begin like a trace, and grade each whole text.

    Args:
        model, problem_set, problem, trace: see :func:`roll_out`.
        kept: the tokens that are continued, after the prompt of the model. What they share with the beginning of the
            trace is not run again.
        skip: indices of texts that are not continued.
        **how: see there.

    Yields:
        The index of a text, and the tokens of its rollouts with their grades, as soon as the last of them has ended.
    """
    prompt, asked = model.prompt_ids(problem.question), model.prompt_text(problem.question)
    prompts = [[*prompt, *tokens] for tokens in kept]
    n, limit = how.get("n_samples", _SAMPLES), how.get("max_new_tokens", _TOKENS)
    spent = how.get("spent") or TokenForwards()
    chosen = {"sampling": how.get("sampling", PLAIN), "seed": how.get("seed", 0)}
    if (servers := how.get("servers")) is None:
        reuse = how.get("reuse", True)
        some = sample_branches(
            model, [*prompt, *trace.tokens], prompts, n, limit, spent=spent, reuse=reuse, skip=skip, **chosen
        )
    else:
        some = served_samples(model, servers, prompts, n, limit, skip=skip, **chosen)
    open_texts: dict[int, dict[int, tuple[list[int], bool]]] = {}
    total = (len(kept) - len(skip)) * n
    with progress_bar(total=total, desc="rollouts", unit="text", show=how.get("progress", False)) as bar:
        for at, number, tokens, cut in some:
            there = open_texts.setdefault(at, {})
            there[number] = tokens, cut
            bar.update()
            if len(there) < n:
                continue
            if spent.total:
                bar.set_postfix_str(f"{spent.prefix:,} tokens of prefixes, {spent.decoded:,} new ones")
            done = open_texts.pop(at)
            tails, cuts = zip(*(done[i] for i in range(n)), strict=True)
            texts = list(texts_after(kept[at], tails, model.decode))
            grade_of = {
                whole: problem_set.grade(whole, problem, think_close=trace.think_tags, prompt=asked)
                for whole in dict.fromkeys(whole for whole, _ in texts)
            }
            grades = [grade_of[whole] for whole, _ in texts]
            found = Continuations(
                len(kept[at]),
                tuple(added for _, added in texts),
                tuple(grade.answer for grade in grades),
                tuple(None if grade.failed else grade.correct for grade in grades),
                cut=cuts,
            )
            yield at, (list(tails), found)

"""Rollouts from many places of a trace, each graded as a whole text; the other files of this room build on them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from probe.models import Model, Sampling
from probe.problems import Problem, ProblemSet
from probe.traces import PLAIN, Trace, encode_after, sample_each, text_after


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


@dataclass(frozen=True)
class Continuations:
    """Sampled continuations of the first tokens of a trace.

    Attributes:
        kept: number of tokens of the trace that are kept.
        texts: the text of each continuation.
        answers: the answer of each whole text; None if it has none.
        correct: whether each answer is right; None if it could not be graded.
    """

    kept: int
    texts: tuple[str, ...]
    answers: tuple[str | None, ...]
    correct: tuple[bool | None, ...]

    def __getitem__(self, some: Sequence[int]) -> "Continuations":
        """The continuations at some indices."""
        return Continuations(
            self.kept,
            tuple(self.texts[i] for i in some),
            tuple(self.answers[i] for i in some),
            tuple(self.correct[i] for i in some),
        )

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        accuracy = f", accuracy {self.accuracy:.2f}" if len(self) else ""
        return f"Continuations({len(self)} after {self.kept} tokens{accuracy})"

    @property
    def accuracy(self) -> float:
        """The share of right answers among those that could be graded; NaN if there are none."""
        graded = [each for each in self.correct if each is not None]
        return sum(graded) / len(graded) if graded else float("nan")

    def shares(self, answers: Sequence[str | None], prior: float = 0.5) -> list[float]:
        """The smoothed share of each of some answers.

        Args:
            answers: the answers whose shares are wanted.
            prior: pseudo-count that is added to the count of each answer.
        """
        counts = Counter(self.answers)
        total = sum(counts[each] for each in answers) + prior * len(answers)
        return [(counts[each] + prior) / total for each in answers]


def roll_out(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    *,
    places: Sequence[int],
    n_samples: int,
    max_new_tokens: int,
    forced: str = "",
    sampling: Sampling = PLAIN,
    seed: int = 0,
    progress: bool = False,
) -> list[Continuations]:
    """Continue a trace from some of its places, and grade each whole text.

    Args:
        model: the model that continues, with its own prompt before the trace.
        problem_set: grades the answers.
        trace: the trace, written by any model; rollouts are graded by its think tags.
        places: for each place, the number of tokens of the trace that are kept.
        n_samples, max_new_tokens, sampling, seed, progress: as in :class:`RolloutSettings`.
        forced: text that is put after the kept tokens, for example to close the thinking.
    """
    prompt, asked = model.prompt_ids(problem.question), model.prompt_text(problem.question)
    cut = [trace.tokens[:place] for place in places]
    kept = [[*tokens, *encode_after(tokens, forced, model.decode, model.tokenizer)] for tokens in cut]
    prompts = [[*prompt, *tokens] for tokens in kept]
    written = sample_each(model, prompts, n_samples, max_new_tokens, sampling=sampling, seed=seed, progress=progress)
    found = []
    for place, before, tails in zip(places, kept, written, strict=True):
        texts = tuple(text_after(before, tail, model.decode) for tail in tails)
        wholes = [model.decode([*before, *tail]) for tail in tails]
        grades = [problem_set.grade(whole, problem, think_close=trace.think_tags, prompt=asked) for whole in wholes]
        answers = tuple(grade.answer for grade in grades)
        correct = tuple(None if grade.failed else grade.correct for grade in grades)
        found.append(Continuations(place, texts, answers, correct))
    return found

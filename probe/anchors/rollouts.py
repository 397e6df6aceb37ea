"""The one engine of this room: a trace is gone on with from many of its places, and every continuation is graded."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.traces import Trace, sample_texts


@dataclass(frozen=True)
class Rollouts:
    """What a model made of the first tokens of a trace, sample by sample.

    Attributes:
        kept: tokens of the trace that it was given.
        texts: what it wrote after them.
        answers: of the whole texts; None where there is none.
        correct: whether each is right; a failed judgement counts in nothing.
    """

    kept: int
    texts: tuple[str, ...]
    answers: tuple[str | None, ...]
    correct: tuple[bool | None, ...]

    def __getitem__(self, some: Sequence[int]) -> "Rollouts":
        """Some of the samples."""
        return Rollouts(
            self.kept,
            tuple(self.texts[i] for i in some),
            tuple(self.answers[i] for i in some),
            tuple(self.correct[i] for i in some),
        )

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def accuracy(self) -> float:
        """The share that is right; NaN if none could be graded."""
        graded = [each for each in self.correct if each is not None]
        return sum(graded) / len(graded) if graded else float("nan")

    def shares(self, answers: Sequence[str | None], prior: float = 0.5) -> list[float]:
        """How often each of some answers was given, each counted ``prior`` times more than it was."""
        counts = Counter(self.answers)
        total = sum(counts[each] for each in answers) + prior * len(answers)
        return [(counts[each] + prior) / total for each in answers]


def roll_out(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    places: Sequence[int],
    *,
    samples: int,
    max_new_tokens: int,
    forced: str = "",
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    progress: bool = False,
) -> list[Rollouts]:
    """Go on with a trace from some of its places.

    Args:
        model: whose prompt comes before the trace.
        places: how many of its tokens are kept.
        samples: continuations of each place.
        max_new_tokens: at most, of each continuation.
        forced: text put after what is kept, as the closing of the thinking.
        seed: of the draws.
        progress: show a bar.
    """
    prompt = model.prompt_ids(problem.question)
    put = list(model.tokenizer(forced, add_special_tokens=False).input_ids) if forced else []
    prompts = [[*prompt, *trace.tokens[:place], *put] for place in places]
    written = sample_texts(
        model, prompts, samples, max_new_tokens, temperature=temperature, top_p=top_p, seed=seed, progress=progress
    )
    found = []
    for place, texts in zip(places, written, strict=True):
        before = model.decode(list(trace.tokens[:place])) + forced
        grades = [problem_set.grade(before + text, problem) for text in texts]
        found.append(
            Rollouts(
                place,
                tuple(texts),
                tuple(grade.answer for grade in grades),
                tuple(None if grade.failed else grade.correct for grade in grades),
            )
        )
    return found

"""Running an arm over problems, kept on disk as it goes, and the figures of the result file."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probe.engine import in_stream
from probe.hybrid.decode import HybridTrace, stream_hybrid
from probe.hybrid.moment import Arm
from probe.models import Model, Pair
from probe.problems import Problem, ProblemSet
from probe.statistics import share_interval
from probe.traces import stream_greedy


@dataclass(frozen=True)
class ArmResult:
    """One arm on all problems.

    Attributes:
        traces: what was emitted and why, one a problem.
        texts: what they decode to.
        seconds: how long decoding took.
        asks: which parts looked at the thinking model; see :attr:`Arm.asks <probe.hybrid.Arm.asks>`.
        fitted_parameters: how many fitted numbers the arm has.
    """

    name: str
    traces: list[HybridTrace]
    texts: list[str]
    seconds: float
    asks: tuple[str, ...] = ()
    fitted_parameters: int = 0

    @property
    def steered_fraction(self) -> float:
        """Steered tokens over emitted tokens, all problems together."""
        steered = sum(sum(trace.steered) for trace in self.traces)
        return steered / max(1, sum(len(trace.tokens) for trace in self.traces))


def evaluate_arm(
    models: Pair | Model,
    arm: Arm,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    seed: int = 0,
    folder: Path | None = None,
    progress: bool = False,
) -> ArmResult:
    """Decode one arm.

    Args:
        models: the pair; or the base model alone, for an arm that never asks the thinking model.
        arm: from :func:`~probe.hybrid.hybrid_arm`, or of parts of your own.
        max_new_tokens: limit of emitted tokens.
        batch_size: how many problems are under way at once.
        seed: of the random controls.
        folder: what is finished is kept here, and a later call does what is missing.
        progress: show a bar.

    Raises:
        ProbeError: if the arm asks the thinking model and only the base model is given.
    """

    def decode(missing: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        some = [problems[item] for item in missing]
        for at, trace in stream_hybrid(
            models, arm, some, max_new_tokens=max_new_tokens, seed=seed, batch_size=batch_size
        ):
            yield missing[at], asdict(trace)

    rows, seconds = in_stream(len(problems), decode, part=batch_size, name=arm.name, folder=folder, progress=progress)
    traces = [HybridTrace(**row) for row in rows]
    base = models if isinstance(models, Model) else models.base
    texts = [base.decode(trace.tokens) for trace in traces]
    return ArmResult(arm.name, traces, texts, seconds, arm.asks, arm.fitted_parameters)


def rollouts(
    model: Model,
    name: str,
    problems: Sequence[Problem],
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    folder: Path | None = None,
    progress: bool = False,
    fitted_parameters: int = 0,
) -> ArmResult:
    """An arm that is a model by itself: greedy answers behind prompts (token ids)."""

    def decode(missing: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        for at, emission in stream_greedy(model, [prompts[item] for item in missing], max_new_tokens, batch_size):
            yield missing[at], {"tokens": list(emission.tokens), "truncated": emission.truncated}

    rows, seconds = in_stream(len(problems), decode, part=batch_size, name=name, folder=folder, progress=progress)
    traces = [HybridTrace(problem.id, **row) for problem, row in zip(problems, rows, strict=True)]
    texts = [model.decode(trace.tokens) for trace in traces]
    return ArmResult(name, traces, texts, seconds, fitted_parameters=fitted_parameters)


def grade_answers(
    problem_set: ProblemSet, problems: Sequence[Problem], texts: Sequence[str], think_close: str
) -> list[bool | None]:
    """Right, wrong, or None where the grader could not tell; such problems are left out and counted."""
    grades = [
        problem_set.grade(text, problem, think_close=think_close) for text, problem in zip(texts, problems, strict=True)
    ]
    return [None if grade.failed else grade.correct for grade in grades]


def summarise(
    correct: Sequence[bool | None],
    *,
    lengths: Sequence[int],
    truncated: Sequence[bool],
    steered_fraction: float,
    seconds: float | None,
) -> dict:
    """One arm's entry in the result file."""
    judged = [bool(value) for value in correct if value is not None]
    return {
        "accuracy": float(np.mean(judged)) if judged else None,
        "ci": share_interval(judged).to_dict()["ci"],
        "n": len(judged),
        "ungraded": len(correct) - len(judged),
        "tokens_per_answer": float(np.mean(lengths)),
        "truncated": float(np.mean(truncated)),
        "steered_fraction": steered_fraction,
        "seconds": None if seconds is None else round(seconds, 2),
    }

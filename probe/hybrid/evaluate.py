"""Running an arm over problems, batch by batch, and the figures of the result file."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probe.hybrid.decode import Arm, HybridTrace, decode_hybrid
from probe.hybrid.statistics import accuracy_interval, entropy_bits
from probe.models import Pair
from probe.problems import Problem, ProblemSet
from probe.traces import in_batches


@dataclass(frozen=True)
class ArmResult:
    """One arm on all problems: its traces, their texts, and the seconds that decoding took."""

    name: str
    traces: list[HybridTrace]
    texts: list[str]
    seconds: float

    @property
    def steered_fraction(self) -> float:
        """Steered tokens over emitted tokens, all problems together."""
        steered = sum(sum(trace.steered) for trace in self.traces)
        return steered / max(1, sum(len(trace.tokens) for trace in self.traces))


def evaluate_arm(
    pair: Pair,
    arm: Arm,
    problems: Sequence[Problem],
    *,
    steering_layer: int,
    taxonomy_layer: int,
    new_tokens: int,
    batch_size: int = 64,
    seed: int = 0,
    folder: Path | None = None,
    progress: bool = False,
) -> ArmResult:
    """Decode one arm; with ``folder`` finished batches are kept and a later call does what is missing."""

    def decode(batch: Sequence[Problem]) -> list[dict[str, Any]]:
        done = decode_hybrid(
            pair,
            arm,
            batch,
            steering_layer=steering_layer,
            taxonomy_layer=taxonomy_layer,
            new_tokens=new_tokens,
            seed=seed,
        )
        return [asdict(trace) for trace in done]

    rows, seconds = in_batches(problems, decode, batch_size, name=arm.name, folder=folder, progress=progress)
    traces = [HybridTrace(**row) for row in rows]
    texts = [pair.base.decode(trace.tokens) for trace in traces]
    return ArmResult(arm.name, traces, texts, seconds)


def judge(
    problem_set: ProblemSet, problems: Sequence[Problem], texts: Sequence[str], think_close: str
) -> list[bool | None]:
    """Right, wrong, or None where the grader could not tell; such problems are left out and counted."""
    grades = [
        problem_set.grade(text, problem, think_close=think_close) for text, problem in zip(texts, problems, strict=True)
    ]
    return [None if grade.failed else grade.correct for grade in grades]


def summarise(
    correct: Sequence[bool | None],
    lengths: Sequence[int],
    truncated: Sequence[bool],
    steered_fraction: float,
    seconds: float | None,
) -> dict:
    """One arm's entry in the result file."""
    judged = [bool(value) for value in correct if value is not None]
    return {
        "accuracy": float(np.mean(judged)) if judged else None,
        "ci": list(accuracy_interval(judged)) if judged else None,
        "n": len(judged),
        "ungraded": len(correct) - len(judged),
        "tokens_per_answer": float(np.mean(lengths)),
        "truncated": float(np.mean(truncated)),
        "steered_fraction": steered_fraction,
        "seconds": None if seconds is None else round(seconds, 2),
    }


def oracle_bits(result: ArmResult, n_behaviours: int) -> dict[str, float]:
    """What the thinking model tells the hybrid, in bits: at every token whether to steer, at gates which behaviour.

    Upper bounds from the marginal frequencies: nothing is assumed that could predict a gate from the text.
    """
    tokens = sum(len(trace.tokens) for trace in result.traces)
    steered = [b for trace in result.traces for b, gate in zip(trace.behaviour, trace.steered, strict=True) if gate]
    which = entropy_bits(np.bincount(steered, minlength=n_behaviours).tolist()) if steered else 0.0
    total = tokens * entropy_bits([len(steered), tokens - len(steered)]) + len(steered) * which
    return {
        "bits_per_token": total / max(tokens, 1),
        "bits_per_steered_token": total / len(steered) if steered else 0.0,
    }

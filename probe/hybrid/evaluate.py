"""Running an arm on problems, with finished shards kept on disk, and the figures of the result file."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probe.engine import Shards
from probe.errors import ProbeError
from probe.files import object_hash
from probe.html import html_table
from probe.hybrid.decode import HybridTrace, stream_hybrid
from probe.hybrid.moment import Arm
from probe.models import Model, Pair, ThinkTags, content_hash, identity
from probe.problems import Problem, ProblemSet
from probe.statistics import share_interval
from probe.traces import kept_rows, stream_greedy


@dataclass(frozen=True, repr=False)
class ArmResult:
    """The answers of one arm to all problems.

    Attributes:
        name: the name of the arm.
        traces: what was emitted and why, one trace for each problem.
        texts: the decoded traces.
        seconds: the time that decoding took.
        asks: the parts that asked the thinking model; see :attr:`Arm.asks <probe.hybrid.Arm.asks>`.
        fitted_parameters: the number of fitted parameters of the arm.
    """

    name: str
    traces: list[HybridTrace]
    texts: list[str]
    seconds: float
    asks: tuple[str, ...] = ()
    fitted_parameters: int = 0

    @property
    def steered_fraction(self) -> float:
        """Steered tokens over emitted tokens, over all problems together."""
        return sum(sum(trace.steered) for trace in self.traces) / max(1, self.emitted)

    @property
    def emitted(self) -> int:
        """The number of emitted tokens, over all problems together."""
        return sum(len(trace.tokens) for trace in self.traces)

    def __repr__(self) -> str:
        steered = f", {self.steered_fraction:.0%} steered" if self.emitted else ""
        return f"ArmResult({self.name!r}, {len(self.traces)} problems, {self.emitted} tokens{steered})"

    def _repr_html_(self) -> str:
        head = ("arm", "problems", "tokens", "steered", "truncated", "asks", "fitted parameters", "seconds")
        truncated, asks = sum(trace.truncated for trace in self.traces), ", ".join(self.asks)
        row = (
            self.name,
            len(self.traces),
            self.emitted,
            f"{self.steered_fraction:.1%}" if self.emitted else None,
            truncated,
            asks,
        )
        return html_table(head, [(*row, self.fitted_parameters, f"{self.seconds:.1f}")])


def arm_shards(
    models: Pair | Model,
    arm: Arm,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Shards:
    """The work of :func:`evaluate_arm` in shards, each decoded by a stream of its own.

    Args:
        models, arm, problems, max_new_tokens, batch_size, seed, folder: see :func:`evaluate_arm`.
    """
    base = models if isinstance(models, Model) else models.base

    def decode(items: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        some = [problems[item] for item in items]
        for at, trace in stream_hybrid(
            models, arm, some, max_new_tokens=max_new_tokens, seed=seed, batch_size=batch_size
        ):
            yield items[at], asdict(trace)

    def key() -> dict[str, Any]:
        asked = models.thinking if isinstance(models, Pair) and arm.asks else None
        return {
            "work": "arm",
            "base": identity(base),
            "thinking": None if asked is None else identity(asked),
            **{part: content_hash(each) for part, each in arm.parts.items()},
            "problems": problems_hash(problems),
            "max_new_tokens": max_new_tokens,
            "seed": seed,
        }

    how = {"device": str(base.device), "batch_size": batch_size}
    return Shards(len(problems), decode, arm.name, key, folder, how=how)


def evaluate_arm(
    models: Pair | Model,
    arm: Arm,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = False,
) -> ArmResult:
    """Decode problems under one arm, and keep finished shards in a folder.

    Args:
        models: the pair, or only the base model for an arm that never asks the thinking model.
        arm: from :func:`~probe.hybrid.hybrid_arm`, or made of your own parts.
        max_new_tokens: limit of emitted tokens, including the end token.
        batch_size: the largest number of problems that are decoded at the same time.
        seed: seeds the random controls.
        folder: keeps shards of 256 problems, so that a later call with the same arguments resumes. None keeps nothing.
        progress: show a bar.

    Raises:
        ProbeError: if the arm asks the thinking model and only the base model is given; or if ``folder`` keeps the work
            of another arm, other models, problems or settings.
    """
    shards = arm_shards(
        models, arm, problems, max_new_tokens=max_new_tokens, batch_size=batch_size, seed=seed, folder=folder
    )
    rows, seconds = shards.rows(progress=progress)
    base = models if isinstance(models, Model) else models.base
    traces = _traces(rows, base, folder)
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
    folder: str | Path | None = None,
    progress: bool = False,
    fitted_parameters: int = 0,
) -> ArmResult:
    """Decode the greedy answers of a single model as the result of an arm.

    Args:
        prompts: the token ids of the prompt for each problem.
        max_new_tokens, batch_size, folder, progress: see :func:`evaluate_arm`.
        fitted_parameters: the number of fitted parameters of the arm.
    """

    def decode(items: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        for at, emission in stream_greedy(model, [prompts[item] for item in items], max_new_tokens, batch_size):
            yield items[at], {"tokens": list(emission.tokens), "truncated": emission.truncated}

    def key() -> dict[str, Any]:
        read = object_hash([list(prompt) for prompt in prompts])
        return {"work": "answers", "model": identity(model), "prompts": read, "max_new_tokens": max_new_tokens}

    how = {"device": str(model.device), "batch_size": batch_size}
    rows, seconds = Shards(len(problems), decode, name, key, folder, how=how).rows(progress=progress)
    rows = [{"problem_id": problem.id, **row} for problem, row in zip(problems, rows, strict=True)]
    traces = _traces(rows, model, folder)
    texts = [model.decode(trace.tokens) for trace in traces]
    return ArmResult(name, traces, texts, seconds, fitted_parameters=fitted_parameters)


def problems_hash(problems: Sequence[Problem]) -> str:
    """Hash the problems that answers belong to; what is right does not change what is written."""
    return object_hash([[problem.id, problem.question] for problem in problems])


def _traces(rows: Sequence[dict[str, Any]], base: Model, folder: str | Path | None) -> list[HybridTrace]:
    """Check rows that may come from files: every list of a trace has a value for each token, or none at all."""
    traces = kept_rows(HybridTrace, rows, base, folder)
    for item, trace in enumerate(traces):
        sizes = {len(values) for values in vars(trace).values() if isinstance(values, list)}
        if not sizes <= {len(trace.tokens), *(() if trace.steered else (0,))}:
            raise ProbeError(
                f"{folder}[{item}] has lists of {sorted(sizes)} values for {len(trace.tokens)} tokens; delete that "
                "folder and run the same command again, which makes it again"
            )
    return traces


def grade_answers(
    problem_set: ProblemSet,
    problems: Sequence[Problem],
    texts: Sequence[str],
    think_close: str | ThinkTags,
    prompts: Sequence[str] | None = None,
) -> list[bool | None]:
    """Grade one answer to each problem.

    Args:
        problem_set: supplies the grader.
        texts: the answer to each problem.
        think_close: the tag that closes the thinking, or both tags; the answer is looked for after it.
        prompts: the prompt before each answer. Where it opens the thinking and the text does not close it, nothing was
            answered. None for prompts that open none; see :func:`answer_prompts`.

    Returns:
        Whether each answer is right; None where the grader failed.
    """
    grades = [
        problem_set.grade(text, problem, think_close=think_close, prompt=prompt)
        for text, problem, prompt in zip(texts, problems, prompts or [""] * len(texts), strict=True)
    ]
    return [None if grade.failed else grade.correct for grade in grades]


def answer_prompts(pair: Pair, problems: Sequence[Problem], texts: Sequence[str], thinking: Sequence[str]) -> list[str]:
    """The prompt by which each answer of an arm is graded: the base model's, which every arm continues.

    An answer that is the thinking model's own text is graded after the thinking model's prompt, so that equal texts
    have equal grades.

    Args:
        texts: the answers of the arm.
        thinking: the answers of the thinking model to the same problems.
    """
    return [
        (pair.thinking if text == own else pair.base).prompt_text(problem.question)
        for problem, text, own in zip(problems, texts, thinking, strict=True)
    ]


def summarise(
    correct: Sequence[bool | None],
    *,
    lengths: Sequence[int],
    truncated: Sequence[bool],
    steered_fraction: float,
    seconds: float | None,
) -> dict:
    """Make the entry of one arm in the result file.

    Args:
        correct: whether each answer is right; None where the grader failed. Such answers are left out and counted.
        lengths: the number of emitted tokens of each answer.
        truncated: whether the limit of tokens stopped each answer.
        steered_fraction: steered tokens over emitted tokens.
        seconds: the time that decoding took; None if unknown.
    """
    graded = [bool(value) for value in correct if value is not None]
    return {
        "accuracy": float(np.mean(graded)) if graded else None,
        "ci": share_interval(graded).to_dict()["ci"],
        "n": len(graded),
        "ungraded": len(correct) - len(graded),
        "tokens_per_answer": float(np.mean(lengths)) if lengths else None,
        "truncated": float(np.mean(truncated)) if truncated else None,
        "steered_fraction": steered_fraction,
        "seconds": None if seconds is None else round(seconds, 2),
    }

"""Running an arm on problems, with finished shards kept on disk, and the figures of the result file."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from probe.engine import Shards
from probe.errors import ProbeError
from probe.files import object_hash
from probe.html import html_table
from probe.hybrid.decode import HybridTrace, stream_hybrid
from probe.hybrid.inserted_passes import inserted_passes
from probe.hybrid.insertion import Inserted
from probe.hybrid.moment import Arm
from probe.models import (
    BOTH_GREEDY,
    GREEDY,
    Model,
    Pair,
    PairSampling,
    Sampling,
    ThinkTags,
    content_hash,
    identity,
)
from probe.problems import Problem, ProblemSet
from probe.statistics import Grades, pass_at, score_interval
from probe.traces import kept_rows, mean_degeneracy, sample_key, sampling_key, stream_draws

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class ArmResult:
    """The answers of one arm to all problems.

    Attributes:
        name: the name of the arm.
        traces: what was emitted and why, one trace for each answer; those to a problem follow each other.
        texts: the decoded traces.
        seconds: the time that decoding took.
        asks: the parts that asked the thinking model; see :attr:`Arm.asks <probe.hybrid.Arm.asks>`.
        fitted_parameters: the number of fitted parameters of the arm.
        samples: the number of answers to each problem.
        correct: whether each answer is right, with several samples a list for each problem; None for what was not
            graded.
        relieves_base: whether the base model is not needed at steered tokens.
        base_passes: the base model's passes for an answer, on average, where they are not one for each token.
        told: further figures of the arm, which go into its entry in the result file.
    """

    name: str
    traces: list[HybridTrace]
    texts: list[str]
    seconds: float
    asks: tuple[str, ...] = ()
    fitted_parameters: int = 0
    samples: int = 1
    correct: Grades | None = None
    relieves_base: bool = False
    base_passes: float | None = None
    told: Mapping[str, float] = field(default_factory=dict)

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
        samples = f" × {self.samples} samples" if self.samples > 1 else ""
        problems = len(self.traces) // self.samples
        return f"ArmResult({self.name!r}, {problems} problems{samples}, {self.emitted} tokens{steered})"

    def _repr_html_(self) -> str:
        head = ("arm", "answers", "tokens", "steered", "truncated", "asks", "fitted parameters", "seconds")
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
    sampling: PairSampling = BOTH_GREEDY,
    batch_size: int = 64,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Shards:
    """The work of :func:`evaluate_arm` in shards, each decoded by a stream of its own.

    An item is one answer to one problem; those to a problem follow each other.

    Args:
        models, arm, problems, max_new_tokens, sampling, batch_size, seed, folder: see :func:`evaluate_arm`.
    """
    answers = _answers(problems, arm.samples(sampling))
    base = models if isinstance(models, Model) else models.base

    def decode(items: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        some = [answers[item] for item in items]
        for at, trace in stream_hybrid(
            models, arm, some, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed, batch_size=batch_size
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
            **_sampling_key(arm, sampling),
        }

    how = {"device": str(base.device), "batch_size": batch_size}
    return Shards(len(answers), decode, arm.name, key, folder, how=how)


def _sampling_key(arm: Arm, sampling: PairSampling) -> dict[str, Any]:
    """What answers depend on of how the models are sampled; nothing if the arm is greedy."""
    drawn = {"base": sampling.base, **({"thinking": sampling.thinking} if arm.emit.draws_thinking else {})}
    if all(each.greedy for each in drawn.values()):
        return {}
    return {"sampling": {role: asdict(each) for role, each in drawn.items()}, "samples": sampling.samples}


def _answers(problems: Sequence[Problem], samples: int) -> list[tuple[Problem, int]]:
    return [(problem, number) for problem in problems for number in range(samples)]


def evaluate_arm(
    models: Pair | Model,
    arm: Arm,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    sampling: PairSampling = BOTH_GREEDY,
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
        sampling: how the models are sampled, and how many answers each problem gets; see
            :func:`~probe.hybrid.decode_hybrid`.
        batch_size: the largest number of answers that are decoded at the same time.
        seed: seeds the sampling and the random controls.
        folder: keeps shards of 256 answers, so that a later call with the same arguments resumes. None keeps nothing.
        progress: show a bar.

    Raises:
        ProbeError: if the arm asks the thinking model and only the base model is given; or if ``folder`` keeps the work
            of another arm, other models, problems or settings.
    """
    shards = arm_shards(
        models,
        arm,
        problems,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        batch_size=batch_size,
        seed=seed,
        folder=folder,
    )
    rows, seconds = shards.rows(progress=progress)
    base = models if isinstance(models, Model) else models.base
    traces = _traces(rows, base, folder)
    texts = [base.decode(trace.tokens) for trace in traces]
    return ArmResult(
        arm.name,
        traces,
        texts,
        seconds,
        arm.asks,
        arm.fitted_parameters,
        samples=arm.samples(sampling),
        relieves_base=arm.relieves_base,
        base_passes=inserted_passes(arm.emit.script, traces) if isinstance(arm.emit, Inserted) else None,
    )


def rollouts(
    model: Model,
    name: str,
    problems: Sequence[Problem],
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    folder: str | Path | None = None,
    progress: bool = False,
    fitted_parameters: int = 0,
) -> ArmResult:
    """Decode the answers of a single model as the result of an arm.

    Args:
        prompts: the token ids of the prompt for each problem.
        sampling: how tokens are chosen.
        samples: the number of answers to each problem; a greedy model gives one.
        max_new_tokens, seed, batch_size, folder, progress: see :func:`evaluate_arm`.
        fitted_parameters: the number of fitted parameters of the arm.
    """
    samples = 1 if sampling.greedy else samples

    def decode(items: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        keys = [sample_key(seed, problems[item // samples].id, item % samples) for item in items]
        asked = [prompts[item // samples] for item in items]
        for at, tokens, truncated in stream_draws(
            model, asked, keys, max_new_tokens, slots=batch_size, sampling=sampling
        ):
            yield items[at], {"tokens": tokens, "truncated": truncated}

    def key() -> dict[str, Any]:
        read = object_hash([list(prompt) for prompt in prompts])
        told = {"work": "answers", "model": identity(model), "prompts": read, "max_new_tokens": max_new_tokens}
        return told | sampling_key(sampling, samples, seed, problems)

    how = {"device": str(model.device), "batch_size": batch_size}
    rows, seconds = Shards(len(problems) * samples, decode, name, key, folder, how=how).rows(progress=progress)
    rows = [
        {"problem_id": problem.id, "sample": number, **row}
        for (problem, number), row in zip(_answers(problems, samples), rows, strict=True)
    ]
    traces = _traces(rows, model, folder)
    texts = [model.decode(trace.tokens) for trace in traces]
    return ArmResult(name, traces, texts, seconds, fitted_parameters=fitted_parameters, samples=samples)


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


def answer_prompts(
    pair: Pair, problems: Sequence[Problem], texts: Sequence[str], thinking: Sequence[Collection[str]]
) -> list[str]:
    """The prompt by which each answer of an arm is graded: the base model's, which every arm continues.

    An answer that is the thinking model's own text is graded after the thinking model's prompt, so that equal texts
    have equal grades.

    Args:
        problems: the problem of each answer.
        texts: the answers of the arm.
        thinking: the thinking model's answers to the problem of each answer.
    """
    return [
        (pair.thinking if text in own else pair.base).prompt_text(problem.question)
        for problem, text, own in zip(problems, texts, thinking, strict=True)
    ]


def by_problem(values: Sequence[T], samples: int) -> list[Sequence[T]]:
    """Put values of consecutive answers together by problem.

    Args:
        values: one value for each answer; those of a problem follow each other.
        samples: the number of answers to each problem.
    """
    return [values[at : at + samples] for at in range(0, len(values), samples)]


def summarise(
    correct: Grades,
    *,
    emitted: Sequence[Sequence[int]],
    texts: Sequence[str],
    truncated: Sequence[bool],
    steered_fraction: float,
    seconds: float | None,
) -> dict:
    """Make the entry of one arm in the result file.

    Args:
        correct: whether the answers to each problem are right; None where the grader failed. Such answers are left out
            and counted.
        emitted, texts: the emitted tokens and the text of each answer.
        truncated: whether the limit of tokens stopped each answer.
        steered_fraction: steered tokens over emitted tokens.
        seconds: the time that decoding took; None if unknown.
    """
    answers = [value for each in correct for value in (each if isinstance(each, Sequence) else [each])]
    samples = len(answers) // max(1, len(correct))
    accuracy = score_interval(correct)
    return {
        "accuracy": accuracy.value,
        "ci": accuracy.to_dict()["ci"],
        "n": accuracy.n,
        "ungraded": sum(value is None for value in answers),
        "samples": samples,
        "pass_at": {str(k): pass_at(correct, k).to_dict() for k in _powers(samples)},
        "tokens_per_answer": float(np.mean([len(tokens) for tokens in emitted])) if emitted else None,
        "truncated": float(np.mean(truncated)) if truncated else None,
        **mean_degeneracy(zip(emitted, texts, strict=True)),
        "steered_fraction": steered_fraction,
        "seconds": None if seconds is None else round(seconds, 2),
    }


def _powers(most: int) -> list[int]:
    """2, 4, 8 … up to ``most``; none for a single sample, whose accuracy says it all."""
    return [2**i for i in range(1, most.bit_length()) if 2**i <= most]

"""Rollouts: greedy decoding, kept on disk as it goes on so that a run that is killed loses little."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from probe.engine import in_stream
from probe.hooks import Lane, Now, stream
from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.traces.trace import Traces, make_trace


@dataclass(frozen=True)
class Emission:
    """The token ids a row emitted, without the end token; ``truncated`` if it was stopped by the limit instead."""

    tokens: tuple[int, ...]
    truncated: bool


def decode_greedy(model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[Emission]:
    """Greedy continuations of a batch of prompts, by cached steps; rows leave the batch when they end."""
    done = dict(stream_greedy(model, prompts, max_new_tokens, max(1, len(prompts))))
    return [done[item] for item in range(len(prompts))]


def stream_greedy(
    model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int, slots: int
) -> Iterator[tuple[int, Emission]]:
    """Greedy continuations of many prompts, ``slots`` at a time, each as soon as it is done, with its number."""
    ends = set(model.eos_ids)
    lane = Lane(model, prompts)
    for item, columns, truncated in stream([lane], _likeliest, ends=ends, max_new_tokens=max_new_tokens, slots=slots):
        yield item, Emission(tuple(columns[0]), truncated)


def _likeliest(now: Now) -> tuple[Int[Tensor, " rows"]]:
    return (now.steps[0].logits.argmax(-1),)


def generate_traces(
    model: Model,
    problem_set: ProblemSet,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    think_close: str = "</think>",
    batch_size: int = 64,
    folder: Path | None = None,
    progress: bool = False,
) -> Traces:
    """Greedy rollouts of a model on problems, graded and split into sentences.

    Args:
        model: either model of a pair; each is asked with its own prompt.
        problem_set: whose grader judges the answers.
        max_new_tokens: a trace that has not ended by then is marked truncated.
        batch_size: how many are decoded at once; a row that ends makes place for the next problem.
        folder: what is finished is kept here, as many at a time, and a later call with the same arguments does only
            what is missing.
        progress: show a bar.
    """

    def roll_out(missing: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        prompts = [model.prompt_ids(problems[item].question) for item in missing]
        for at, emission in stream_greedy(model, prompts, max_new_tokens, batch_size):
            yield missing[at], asdict(emission)

    rows, seconds = in_stream(
        len(problems), roll_out, part=batch_size, name=f"traces of {model.name}", folder=folder, progress=progress
    )
    traces = [
        make_trace(model, problem_set, problem, row["tokens"], row["truncated"], think_close)
        for problem, row in zip(problems, rows, strict=True)
    ]
    return Traces(model.name, problem_set.name, traces, seconds)

"""Greedy rollouts, saved as they finish so that an interrupted run loses little."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from probe.engine import in_stream
from probe.files import object_hash
from probe.hooks import Lane, Now, likeliest, stream
from probe.models import Model, ThinkTags, identity
from probe.problems import Problem, ProblemSet
from probe.traces.trace import Traces, make_trace


@dataclass(frozen=True)
class Emission:
    """The token ids that a row emitted, without the end token; ``truncated`` if the limit on tokens stopped it."""

    tokens: tuple[int, ...]
    truncated: bool


def decode_greedy(model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[Emission]:
    """Decode greedy continuations of a batch of prompts with a key/value cache.

    Args:
        prompts: token ids, one non-empty list for each prompt.
        max_new_tokens: the maximum number of tokens that are emitted for a prompt.

    Returns:
        One emission for each prompt, in order.

    Raises:
        ProbeError: for a prompt that the model cannot continue, and where its logits are not finite.
    """
    done = dict(stream_greedy(model, prompts, max_new_tokens, max(1, len(prompts))))
    return [done[item] for item in range(len(prompts))]


def stream_greedy(
    model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int, slots: int
) -> Iterator[tuple[int, Emission]]:
    """Decode greedy continuations of any number of prompts.

    Args:
        prompts: token ids, one non-empty list for each prompt.
        max_new_tokens: the maximum number of tokens that are emitted for a prompt.
        slots: the number of prompts that are decoded at once.

    Yields:
        The index of a prompt and its emission, as soon as it is done.
    """
    ends = set(model.eos_ids)
    lane = Lane(model, prompts)
    for item, columns, truncated in stream([lane], _likeliest, ends=ends, max_new_tokens=max_new_tokens, slots=slots):
        yield item, Emission(tuple(columns[0]), truncated)


def _likeliest(now: Now) -> tuple[Int[Tensor, " rows"]]:
    return (likeliest(now.steps[0].logits),)


def generate_traces(
    model: Model,
    problem_set: ProblemSet,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    think_close: str | ThinkTags | None = None,
    batch_size: int = 64,
    folder: str | Path | None = None,
    progress: bool = False,
) -> Traces:
    """Greedy rollouts of a model on problems, graded and split into sentences.

    Args:
        model: either model of a pair; its own prompt template is used.
        problem_set: supplies the grader.
        max_new_tokens: the maximum number of tokens of a trace; a trace that reaches it is marked truncated.
        think_close: the tag that closes the thinking, or both tags; None for those of the model.
        batch_size: the number of problems decoded at once; a finished one is replaced by the next.
        folder: finished traces are saved here, ``batch_size`` at a time; a later call with the same arguments resumes.
        progress: show a progress bar.

    Returns:
        One trace for each problem, in order.

    Raises:
        ProbeError: if ``folder`` keeps traces of another model, prompt, limit or of other problems, or another process
            writes into it.
    """

    def roll_out(missing: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        prompts = [model.prompt_ids(problems[item].question) for item in missing]
        for at, emission in stream_greedy(model, prompts, max_new_tokens, batch_size):
            yield missing[at], asdict(emission)

    def key() -> dict[str, Any]:
        return {
            "work": "greedy traces",
            "model": identity(model),
            "problems": object_hash([problem.question for problem in problems]),
            "max_new_tokens": max_new_tokens,
        }

    rows, seconds = in_stream(
        len(problems),
        roll_out,
        part=batch_size,
        name=f"traces of {model.name}",
        key=key,
        folder=folder,
        progress=progress,
    )
    traces = [
        make_trace(model, problem_set, problem, row["tokens"], row["truncated"], think_close)
        for problem, row in zip(problems, rows, strict=True)
    ]
    return Traces(model.name, problem_set.name, traces, seconds)

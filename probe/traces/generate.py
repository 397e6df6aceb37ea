"""Greedy rollouts, saved in shards so that an interrupted run resumes."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from jaxtyping import Int
from torch import Tensor

from probe.config import as_type
from probe.engine import Shards
from probe.errors import ProbeError
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


Row = TypeVar("Row")


def kept_rows(kind: type[Row], rows: Sequence[Any], model: Model, folder: str | Path | None) -> list[Row]:
    """Check rows of emitted tokens, which may come from files.

    Args:
        kind: the dataclass of a row: ``tokens`` are the emitted ids, ``base_token`` and ``thinking_token`` (−1 for
            none) those that the models preferred.
        rows: the rows of :class:`~probe.engine.Shards`.
        model: the model whose tokens they are.
        folder: where they are kept, for the error message; None if they were not read.

    Raises:
        ProbeError: if a row lacks a part, has one of another type, or has a token that the model does not have.
    """
    where = "rows" if folder is None else str(folder)
    found: list[Row] = as_type(list[kind], list(rows), where, fix=_AGAIN)
    size = max(model.hf.config.get_text_config().vocab_size, len(model.tokenizer))
    for item, row in enumerate(found):
        for name in ("tokens", "base_token", "thinking_token"):
            ids = getattr(row, name, ())
            if ids and not (min(ids) >= (0 if name == "tokens" else -1) and max(ids) < size):
                raise ProbeError(f"{where}[{item}].{name} has ids that {model.name} does not have; {_AGAIN}")
    return found


_AGAIN = "delete that folder and run the same command again, which makes it again"


def trace_shards(
    model: Model,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    folder: str | Path | None = None,
) -> Shards:
    """The work of :func:`generate_traces` in shards, each decoded by a stream of its own.

    Args:
        model, problems, max_new_tokens, batch_size, folder: see :func:`generate_traces`.
    """

    def roll_out(items: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        prompts = [model.prompt_ids(problems[item].question) for item in items]
        for at, emission in stream_greedy(model, prompts, max_new_tokens, batch_size):
            yield items[at], asdict(emission)

    def key() -> dict[str, Any]:
        return {
            "work": "greedy traces",
            "model": identity(model),
            "problems": object_hash([problem.question for problem in problems]),
            "max_new_tokens": max_new_tokens,
        }

    how = {"device": str(model.device), "batch_size": batch_size}
    return Shards(len(problems), roll_out, f"traces of {model.name}", key, folder, how=how)


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
        batch_size: the largest number of problems decoded at once; a finished one is replaced by the next.
        folder: traces are saved here in shards of 256; a later call with the same arguments makes the missing ones.
        progress: show a progress bar.

    Returns:
        One trace for each problem, in order.

    Raises:
        ProbeError: if ``folder`` keeps traces of another model, prompt, limit or of other problems.
    """
    shards = trace_shards(model, problems, max_new_tokens=max_new_tokens, batch_size=batch_size, folder=folder)
    rows, seconds = shards.rows(progress=progress)
    emissions = kept_rows(Emission, rows, model, folder)
    traces = [
        make_trace(model, problem_set, problem, emission.tokens, emission.truncated, think_close)
        for problem, emission in zip(problems, emissions, strict=True)
    ]
    return Traces(model.name, problem_set.name, traces, seconds)

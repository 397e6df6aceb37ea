"""Rollouts, greedy or sampled, saved in shards so that an interrupted run resumes."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from probe.config import as_type
from probe.engine import Shards
from probe.errors import ProbeError
from probe.files import object_hash
from probe.models import GREEDY, Model, Sampling, ThinkTags, identity
from probe.problems import Problem, ProblemSet
from probe.traces.sampling import sample_key, stream_draws
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
    for item, tokens, truncated in stream_draws(
        model, prompts, [0] * len(prompts), max_new_tokens, slots=slots, sampling=GREEDY
    ):
        yield item, Emission(tuple(tokens), truncated)


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
    sampling: Sampling = GREEDY,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    folder: str | Path | None = None,
) -> Shards:
    """The work of :func:`generate_traces` in shards, each decoded by a stream of its own.

    An item is one sample of one problem; the samples of a problem follow each other.

    Args:
        model, problems, max_new_tokens, sampling, samples, seed, batch_size, folder: see :func:`generate_traces`.

    Raises:
        ProbeError: for fewer than one sample, or for several samples that would all be equal.
    """
    check_samples(sampling, samples)

    def roll_out(items: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        asked = [problems[item // samples] for item in items]
        prompts = [model.prompt_ids(problem.question) for problem in asked]
        keys = [sample_key(seed, problem.id, item % samples) for problem, item in zip(asked, items, strict=True)]
        found = stream_draws(model, prompts, keys, max_new_tokens, slots=batch_size, sampling=sampling)
        for at, tokens, truncated in found:
            yield items[at], asdict(Emission(tuple(tokens), truncated))

    def key() -> dict[str, Any]:
        return {
            "work": "greedy traces" if sampling.greedy else "sampled traces",
            "model": identity(model),
            "problems": object_hash([problem.question for problem in problems]),
            "max_new_tokens": max_new_tokens,
            **sampling_key(sampling, samples, seed, problems),
        }

    how = {"device": str(model.device), "batch_size": batch_size}
    return Shards(len(problems) * samples, roll_out, f"traces of {model.name}", key, folder, how=how)


def sampling_key(sampling: Sampling, samples: int, seed: int, problems: Sequence[Problem]) -> dict[str, Any]:
    """What sampled answers depend on besides the models and the questions; empty if they are greedy."""
    if sampling.greedy:
        return {}
    # The random numbers of a sample follow from the id of its problem.
    ids = object_hash([problem.id for problem in problems])
    return {"sampling": asdict(sampling), "samples": samples, "seed": seed, "ids": ids}


def check_samples(sampling: Sampling, samples: int) -> None:
    """Check the number of samples.

    Raises:
        ProbeError: for fewer than one sample, or for several greedy samples, which would be equal.
    """
    if samples < 1:
        raise ProbeError(f"samples is {samples}; it must be at least 1")
    if sampling.greedy and samples > 1:
        raise ProbeError(f"{samples} greedy samples would be equal; give a temperature above 0, or one sample")


def generate_traces(
    model: Model,
    problem_set: ProblemSet,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    samples: int = 1,
    seed: int = 0,
    think_close: str | ThinkTags | None = None,
    batch_size: int = 64,
    folder: str | Path | None = None,
    progress: bool = False,
) -> Traces:
    """Rollouts of a model on problems, graded and split into sentences; greedy by default.

    Args:
        model: either model of a pair; its own prompt template is used.
        problem_set: supplies the grader.
        max_new_tokens: the maximum number of tokens of a trace; a trace that reaches it is marked truncated.
        sampling: how tokens are chosen. A sampled token depends on the seed, the id of the problem, the number of the
            sample and its position alone, not on the batch or the order.
        samples: the number of traces of each problem; more than one requires sampling.
        seed: seeds the sampling.
        think_close: the tag that closes the thinking, or both tags; None for those of the model.
        batch_size: the largest number of problems decoded at once; a finished one is replaced by the next.
        folder: traces are saved here in shards of 256; a later call with the same arguments makes the missing ones.
        progress: show a progress bar.

    Returns:
        The traces in the order of the problems, all samples of a problem together.

    Raises:
        ProbeError: if ``folder`` holds traces of another model, prompt, limit, sampling or of other problems.
    """
    shards = trace_shards(
        model,
        problems,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        samples=samples,
        seed=seed,
        batch_size=batch_size,
        folder=folder,
    )
    return graded_traces(model, problem_set, problems, shards, think_close=think_close, progress=progress)


def graded_traces(
    model: Model,
    problem_set: ProblemSet,
    problems: Sequence[Problem],
    shards: Shards,
    *,
    think_close: str | ThinkTags | None = None,
    progress: bool = False,
) -> Traces:
    """The traces of shards of emitted tokens; missing shards are made.

    Args:
        model, problem_set, problems, think_close, progress: see :func:`generate_traces`.
        shards: one row for each sample of each problem.

    Raises:
        ProbeError: as for making the shards, and if a row is damaged.
    """
    rows, seconds = shards.rows(progress=progress)
    emissions, samples = kept_rows(Emission, rows, model, shards.folder), shards.n // max(1, len(problems))
    traces = [
        make_trace(
            model,
            problem_set,
            problems[item // samples],
            emission.tokens,
            emission.truncated,
            think_close,
            sample=item % samples,
        )
        for item, emission in enumerate(emissions)
    ]
    return Traces(model.name, problem_set.name, traces, seconds)

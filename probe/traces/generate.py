"""Rollouts: greedy decoding in batches, stored batch by batch so that a run that is killed goes on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from probe.hooks import Runner
from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.traces.batches import in_batches
from probe.traces.trace import Traces, make_trace


@dataclass(frozen=True)
class Emission:
    """The token ids a row emitted, without the end token; ``truncated`` if it was stopped by the limit instead."""

    tokens: tuple[int, ...]
    truncated: bool


def decode_greedy(model: Model, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[Emission]:
    """Greedy continuations of a batch of prompts, by cached steps; rows leave the batch when they end."""
    out: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    alive = list(range(len(prompts)))
    runner = Runner(model, prompts, new_tokens)
    step = runner.prefill()
    for i in range(new_tokens):
        tokens = step.logits.argmax(-1)
        going = []
        for at, (row, token) in enumerate(zip(alive, tokens.tolist(), strict=True)):
            if token in model.eos_ids:
                ended[row] = True
            else:
                out[row].append(token)
                going.append(at)
        if not going or i == new_tokens - 1:
            break
        if len(going) < len(alive):
            rows = torch.tensor(going, device=tokens.device)
            runner.keep(rows)
            alive, tokens = [alive[at] for at in going], tokens[rows]
        step = runner.step(tokens)
    return [Emission(tuple(tokens), not end) for tokens, end in zip(out, ended, strict=True)]


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
        folder: each finished batch is kept here, and a later call with the same arguments does only what is missing.
        progress: show a bar.
    """

    def roll_out(batch: Sequence[Problem]) -> list[dict[str, Any]]:
        prompts = [model.prompt_ids(problem.question) for problem in batch]
        return [asdict(row) for row in decode_greedy(model, prompts, max_new_tokens)]

    rows, seconds = in_batches(
        problems, roll_out, batch_size, name=f"traces of {model.name}", folder=folder, progress=progress
    )
    traces = [
        make_trace(model, problem_set, problem, row["tokens"], row["truncated"], think_close)
        for problem, row in zip(problems, rows, strict=True)
    ]
    return Traces(model.name, problem_set.name, traces, seconds)

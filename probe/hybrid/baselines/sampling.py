"""Majority voting over several sampled answers of the base model (self-consistency)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from probe.engine import Shards
from probe.hybrid.decode import HybridTrace
from probe.hybrid.evaluate import ArmResult, problems_hash
from probe.models import Model, Sampling, ThinkTags, identity
from probe.problems import Problem, extract_answer
from probe.traces import random_key, stream_draws

MAJORITY = Sampling(temperature=0.7)


def run_majority(
    base: Model,
    problems: Sequence[Problem],
    *,
    n: int,
    max_new_tokens: int,
    sampling: Sampling = MAJORITY,
    seed: int = 0,
    batch_size: int = 64,
    think_close: str | ThinkTags | None = None,
    folder: str | Path | None = None,
    progress: bool = False,
) -> ArmResult:
    """Sample several answers to each problem and keep one with the most frequent answer (Wang et al., 2203.11171).

    Args:
        n: the number of samples for each problem.
        max_new_tokens, batch_size, folder, progress: see :func:`~probe.hybrid.evaluate_arm`.
        sampling: how tokens are sampled; with a temperature above 0.
        seed: seeds the samples; each depends only on the seed, the problem and its number.
        think_close: the tag that closes the thinking, or both tags; an answer is looked for after it. None for those of
            the model.

    Returns:
        For each problem the first sample with the most frequent answer. Among equally frequent answers the earliest
        wins. Samples without an answer do not vote; if no sample has one, the first sample is kept.
    """
    tags = base.think_tags if think_close is None else think_close
    tasks = [(problem, sample) for problem in problems for sample in range(n)]

    def decode(missing: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        prompts = [base.prompt_ids(tasks[item][0].question) for item in missing]
        keys = [random_key("majority", seed, tasks[item][0].id, tasks[item][1]) for item in missing]
        samples = stream_draws(base, prompts, keys, max_new_tokens, slots=batch_size, sampling=sampling)
        for at, tokens, truncated in samples:
            yield missing[at], {"tokens": tokens, "truncated": truncated}

    def key() -> dict[str, Any]:
        return {
            "work": "samples",
            "model": identity(base),
            "problems": problems_hash(problems),
            "n": n,
            "temperature": sampling.temperature,
            **({} if sampling == Sampling(sampling.temperature) else {"sampling": asdict(sampling)}),
            "max_new_tokens": max_new_tokens,
            "seed": seed,
        }

    how = {"device": str(base.device), "batch_size": batch_size}
    rows, seconds = Shards(len(tasks), decode, f"majority of {n}", key, folder, how=how).rows(progress=progress)
    traces, texts = [], []
    for i, problem in enumerate(problems):
        some = rows[i * n : (i + 1) * n]
        prompt = base.prompt_text(problem.question)
        written = [base.decode(row["tokens"]) for row in some]
        chosen = vote([extract_answer(text, tags, like=problem.answer, prompt=prompt) for text in written])
        traces.append(HybridTrace(problem.id, tokens=some[chosen]["tokens"], truncated=some[chosen]["truncated"]))
        texts.append(written[chosen])
    each = sum(len(row["tokens"]) + (not row["truncated"]) for row in rows) / max(1, len(problems))
    return ArmResult("majority", traces, texts, seconds, base_passes=each)


def vote(answers: Sequence[str | None]) -> int:
    """Choose the index of the first sample with the most frequent answer.

    Args:
        answers: the answer of each sample; None for a sample without one.

    >>> vote([None, "12", "7", "7", "12", None, None]), vote([None, None])
    (1, 0)
    """
    counts = Counter(answer for answer in answers if answer is not None)
    return answers.index(counts.most_common(1)[0][0]) if counts else 0

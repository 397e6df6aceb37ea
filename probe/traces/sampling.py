"""Sampling: random continuations of prompts, each from random numbers of its own.

A sample depends on the seed, its prompt and its number alone: neither on what is decoded with it, nor on the order.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from probe.errors import ProbeError
from probe.hooks import Lane, Now, check_prompts, likeliest, stream
from probe.models import Model, Sampling
from probe.progress import progress_bar
from probe.traces.pieces import texts_after

_MOST = 512
"""The largest number of rows that are decoded at once; more are no faster."""
PLAIN = Sampling(temperature=1.0)
"""Sampling from the whole distribution of the model."""
_STEP, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""The constants of splitmix64 as signed numbers."""


def random_key(*names: object) -> int:
    """Make the key of a stream of random numbers from what it belongs to, such as a seed, a problem and a number."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, names)).encode()).digest()[:8], "big", signed=True)


def sample_key(seed: int, problem_id: str, number: int) -> int:
    """The key of one sample of a problem.

    All models and arms of a run use the same random numbers for it. So they differ only where their distributions
    differ, and an arm whose steering does nothing writes what the base model writes.
    """
    return random_key("answer", seed, problem_id, number)


def uniform(keys: Int[Tensor, " rows"], places: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """Random numbers from 0 to 1, each of which depends on its key and place alone (splitmix64: Steele et al., 2014).

    Args:
        keys: of each row, from :func:`random_key`.
        places: the number of random numbers before it in the stream of its key.
    """
    z = keys + (places + 1) * _STEP  # int64 wraps around
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        z = (z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))) * factor
    z = z ^ ((z >> 31) & ((1 << 33) - 1))
    return ((z >> 40) & 0xFFFFFF).float() / 2**24


def draw(
    logits: Float[Tensor, "rows vocab"],
    keys: Int[Tensor, " rows"],
    places: Int[Tensor, " rows"],
    sampling: Sampling,
) -> Int[Tensor, " rows"]:
    """Choose the next token of each row: a sampled one, or the most likely one.

    Args:
        logits: one row for each sequence; tokens are chosen on their device.
        keys: the keys of the random numbers of each row, from :func:`random_key`; greedy decoding does not use them.
        places: the number of tokens before the token of each row.
        sampling: how the token is chosen.

    Returns:
        Token ids; −1 where the logits are not finite.
    """
    return likeliest(logits) if sampling.greedy else token_at(logits, uniform(keys, places), sampling)


def token_at(
    logits: Float[Tensor, "rows vocab"], numbers: Float[Tensor, " rows"], sampling: Sampling
) -> Int[Tensor, " rows"]:
    """The token of each row at which the cumulative distribution reaches a number.

    Args:
        logits: one row for each sequence.
        numbers: a number for each row, from 0 up to, but not including, 1.
        sampling: with a temperature above 0.

    Returns:
        Token ids; −1 where the logits are not finite.
    """
    return tokens_at(logits, numbers[:, None], sampling)[:, 0]


def tokens_at(
    logits: Float[Tensor, "rows vocab"], numbers: Float[Tensor, "rows some"], sampling: Sampling
) -> Int[Tensor, "rows some"]:
    """Several tokens for each row, as :func:`token_at` finds one; the distribution is computed once."""
    chances = probabilities(logits, sampling)
    sums = chances.cumsum(-1)
    if sums.is_cuda:  # there the parallel sums may fall where nothing is added, and a token of probability 0 be found
        sums = torch.where(chances > 0, sums, 0).cummax(-1).values
    total = sums[:, -1:]
    # Below the total, so that rounding never gives a token after the last that has a probability.
    at = torch.minimum(numbers * total, total.nextafter(torch.zeros_like(total)))
    return torch.where(total.isfinite(), torch.searchsorted(sums, at, right=True), -1)


def probabilities(logits: Float[Tensor, "rows vocab"], sampling: Sampling) -> Float[Tensor, "rows vocab"]:
    """The probabilities with which tokens are sampled.

    Args:
        logits: one row for each sequence.
        sampling: with a temperature above 0.

    Returns:
        Probabilities that add up to 1 in each row; 0 for tokens that top-k, top-p or min-p removes.
    """
    scores, unused = logits.float() / sampling.temperature, torch.empty(0, dtype=torch.long)
    cuts: list[LogitsProcessor] = [
        *([TopKLogitsWarper(sampling.top_k)] if sampling.top_k is not None else []),
        *([TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []),
        *([MinPLogitsWarper(sampling.min_p)] if sampling.min_p else []),
    ]
    for cut in cuts:
        scores = cut(unused, scores)  # pyright: ignore[reportArgumentType]
    return scores.softmax(-1)


def stream_draws(
    model: Model,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[int],
    max_new_tokens: int,
    *,
    slots: int = _MOST,
    sampling: Sampling = PLAIN,
    until: Callable[[int, Sequence[int]], bool] | None = None,
    called: Callable[[int], str] = "prompt {}".format,
) -> Iterator[tuple[int, list[int], bool]]:
    """Sample one continuation of each prompt.

    Args:
        prompts: token ids, one non-empty list for each sample. Equal prompts that follow each other are run once.
        keys: of the random numbers of each sample, from :func:`random_key`.
        max_new_tokens: the maximum number of tokens of a sample.
        slots: how many are decoded at once, at most; fewer where memory says so.
        sampling: how tokens are chosen.
        until, called: as in :func:`~probe.hooks.stream`.

    Yields:
        The index of a sample; its token ids without the end token; and whether the limit on tokens stopped it.

    Raises:
        ProbeError: for a prompt that the model cannot continue, and where its logits are not finite.
    """
    each = torch.tensor(keys, dtype=torch.long, device=model.device)
    # An embedding may be padded with rows that are not tokens; they are unlikely, but must never be sampled.
    vocab = None if sampling.greedy else len(model.tokenizer)

    def choose(now: Now) -> tuple[Int[Tensor, " rows"]]:
        return (draw(now.steps[0].logits[:, :vocab], each[now.items], now.counts, sampling),)

    for item, (tokens,), truncated in stream(
        [Lane(model, prompts)],
        choose,
        ends=set(model.eos_ids),
        max_new_tokens=max_new_tokens,
        slots=slots,
        until=until,
        called=called,
    ):
        yield item, tokens, truncated


def stream_samples(
    model: Model,
    prompts: Sequence[Sequence[int]],
    samples: int,
    max_new_tokens: int,
    *,
    slots: int = _MOST,
    sampling: Sampling = PLAIN,
    seed: int = 0,
    until: Callable[[Sequence[int]], bool] | None = None,
) -> Iterator[tuple[int, int, list[int], bool]]:
    """Sample several continuations of each prompt, those of long prompts first.

    Args:
        prompts: token ids, one non-empty list for each prompt. If a prompt occurs twice, its samples differ.
        samples: the number of samples of each prompt.
        max_new_tokens, slots, sampling: as in :func:`stream_draws`.
        seed: seeds the sampling. A sample depends on it, on its prompt and on its number alone.
        until: called with the tokens of a sample so far; True ends it.

    Yields:
        The index of a prompt; the number of the sample; its token ids without the end token; and whether the limit on
        tokens stopped it.

    Raises:
        ProbeError: as in :func:`stream_draws`, and for fewer than one sample.
    """
    check_prompts(model, prompts, max_new_tokens)
    keys = sample_keys(prompts, samples, seed)
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    found = stream_draws(
        model,
        [prompts[i] for i in order for _ in range(samples)],
        [key for i in order for key in keys[i]],
        max_new_tokens,
        slots=slots,
        sampling=sampling,
        until=None if until is None else lambda _, tokens: until(tokens),
        called=lambda item: f"sample {item % samples} of prompt {order[item // samples]}",
    )
    for item, tokens, truncated in found:
        yield order[item // samples], item % samples, tokens, truncated


def sample_keys(prompts: Sequence[Sequence[int]], samples: int, seed: int) -> list[list[int]]:
    """The keys of the random numbers of the samples of each prompt.

    Raises:
        ProbeError: for fewer than one sample.
    """
    if samples < 1:
        raise ProbeError(f"{samples} samples of each prompt requested; give at least 1")
    occurred: Counter[tuple[int, ...]] = Counter()
    keys: list[list[int]] = []
    for prompt in prompts:
        ids = tuple(prompt)
        name = hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()
        keys.append([random_key("sample", seed, name, occurred[ids], number) for number in range(samples)])
        occurred[ids] += 1
    return keys


def sample_each(
    model: Model,
    prompts: Sequence[Sequence[int]],
    samples: int,
    max_new_tokens: int,
    *,
    sampling: Sampling = PLAIN,
    seed: int = 0,
    progress: bool = False,
) -> list[list[list[int]]]:
    """Sample several continuations of any number of prompts.

    Args:
        prompts, samples, max_new_tokens, sampling, seed: as in :func:`stream_samples`.
        progress: show a progress bar.

    Returns:
        For each prompt the emitted ids of its samples, without end tokens.

    Raises:
        ProbeError: as there.
    """
    found: list[list[list[int]]] = [[[] for _ in range(samples)] for _ in prompts]
    some = stream_samples(model, prompts, samples, max_new_tokens, sampling=sampling, seed=seed)
    with progress_bar(total=len(prompts) * samples, desc="rollouts", unit="text", show=progress) as bar:
        for prompt, number, tokens, _ in some:
            found[prompt][number] = tokens
            bar.update()
    return found


def sample_texts(
    model: Model, prompts: Sequence[Sequence[int]], samples: int, max_new_tokens: int, **how: Any
) -> list[list[str]]:
    """Sample continuations as texts: what each adds to the text of its prompt.

    Args:
        model, prompts, samples, max_new_tokens: see :func:`sample_each`.
        **how: ``sampling``, ``seed`` and ``progress``, as in :func:`sample_each`.

    Returns:
        For each prompt the texts of its samples, without end tokens.

    Raises:
        ProbeError: as there.
    """
    found = sample_each(model, prompts, samples, max_new_tokens, **how)
    return [
        [added for _, added in texts_after(prompt, tails, model.decode)]
        for prompt, tails in zip(prompts, found, strict=True)
    ]

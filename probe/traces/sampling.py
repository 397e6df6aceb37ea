"""Sampling: several random continuations of each prompt, decoded with a key/value cache."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm
from transformers import TopPLogitsWarper

from probe.errors import ProbeError
from probe.hooks import Runner, check_prompts, not_finite
from probe.models import Model
from probe.traces.pieces import text_after

_ROWS = 512
"""The number of rows that are decoded at once."""


@torch.no_grad()
def sample(
    model: Model,
    prompts: Sequence[Sequence[int]],
    samples: int,
    max_new_tokens: int,
    generator: torch.Generator,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    numbers: Sequence[int] | None = None,
) -> list[list[int]]:
    """Sample continuations of one batch of prompts.

    Args:
        prompts: token ids, one non-empty list for each prompt.
        samples: the number of samples of each prompt.
        max_new_tokens: the maximum number of tokens of a sample.
        generator: a CPU generator that supplies the random numbers.
        temperature: divides the logits; above 0.
        top_p: as in :func:`nucleus`.
        numbers: what messages call each prompt; None for its index.

    Returns:
        The emitted ids of each sample, with the end token if it was reached; samples of one prompt are adjacent.

    Raises:
        ProbeError: for a prompt that the model cannot continue, and where its logits are not finite.
    """
    check_prompts(model, prompts, max_new_tokens)
    if samples < 1 or not temperature > 0 or not 0 < top_p <= 1:
        raise ProbeError(
            f"{samples} samples at temperature {temperature} and top_p {top_p}; "
            "give at least 1 sample, a temperature above 0 and a top_p from 0 to 1"
        )
    ends = torch.tensor(model.eos_ids, device=model.device)
    out: list[list[int]] = [[] for _ in range(len(prompts) * samples)]
    alive = torch.arange(len(out))
    runner = Runner(model, prompts, max_new_tokens)
    logits = runner.prefill().logits.repeat_interleave(samples, 0)
    runner.repeat(samples)
    for i in range(max_new_tokens):
        chances = nucleus(logits, temperature, top_p).cpu()
        if chances[:, 0].isnan().any():  # one bad logit makes every probability of its row NaN
            row = int(alive[chances[:, 0].isnan()][0])
            prompt = row // samples if numbers is None else numbers[row // samples]
            raise not_finite(f"a logit at new token {i} of sample {row % samples} of prompt {prompt}", model)
        tokens = torch.multinomial(chances, 1, generator=generator)[:, 0]
        for row, token in zip(alive.tolist(), tokens.tolist(), strict=True):
            out[row].append(token)
        tokens = tokens.to(model.device)
        going = (~torch.isin(tokens, ends)).nonzero()[:, 0]
        if len(going) == 0 or i == max_new_tokens - 1:
            break
        if len(going) < len(tokens):
            runner.keep(going)
            alive, tokens = alive[going.cpu()], tokens[going]
        logits = runner.step(tokens).logits
    return out


def sample_each(
    model: Model,
    prompts: Sequence[Sequence[int]],
    samples: int,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    progress: bool = False,
) -> list[list[list[int]]]:
    """Sample continuations of any number of prompts; prompts of similar length are decoded together.

    Args:
        prompts: token ids, one non-empty list for each prompt.
        samples: the number of samples of each prompt.
        max_new_tokens: the maximum number of tokens of a sample.
        temperature: divides the logits; above 0.
        top_p: as in :func:`nucleus`.
        seed: seeds the sampling.
        progress: show a progress bar.

    Returns:
        For each prompt the emitted ids of its samples, without end tokens.

    Raises:
        ProbeError: if the model cannot continue a prompt, before any is run.
    """
    check_prompts(model, prompts, max_new_tokens)
    generator = torch.Generator().manual_seed(seed)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    each = max(1, _ROWS // samples)
    found: list[list[list[int]]] = [[] for _ in prompts]
    with tqdm(total=len(prompts), desc="rollouts", unit="text", disable=not progress) as bar:
        for first in range(0, len(order), each):
            some = order[first : first + each]
            tails = sample(
                model,
                [prompts[i] for i in some],
                samples,
                max_new_tokens,
                generator,
                temperature=temperature,
                top_p=top_p,
                numbers=some,
            )
            for place, tail in enumerate(tails):
                ended = bool(tail) and tail[-1] in model.eos_ids
                found[some[place // samples]].append(tail[:-1] if ended else tail)
            bar.update(len(some))
    return found


def sample_texts(
    model: Model, prompts: Sequence[Sequence[int]], samples: int, max_new_tokens: int, **sampling: Any
) -> list[list[str]]:
    """Sample continuations as texts: what each adds to the text of its prompt.

    Args:
        model, prompts, samples, max_new_tokens: see :func:`sample_each`.
        **sampling: ``temperature``, ``top_p``, ``seed`` and ``progress``, as there.

    Returns:
        For each prompt the texts of its samples, without end tokens.

    Raises:
        ProbeError: as there.
    """
    found = sample_each(model, prompts, samples, max_new_tokens, **sampling)
    return [
        [text_after(prompt, tail, model.decode) for tail in tails] for prompt, tails in zip(prompts, found, strict=True)
    ]


def nucleus(logits: Float[Tensor, "row vocab"], temperature: float, top_p: float) -> Float[Tensor, "row vocab"]:
    """The probabilities to sample from in nucleus sampling (Holtzman et al., arXiv 1904.09751).

    Args:
        logits: one row for each sequence.
        temperature: divides the logits; above 0.
        top_p: keep the fewest most likely tokens whose probabilities add up to this; 1 keeps all.

    Returns:
        Probabilities that add up to 1 in each row; 0 outside the nucleus.
    """
    scores = logits.float() / temperature
    if top_p < 1.0:
        scores = TopPLogitsWarper(top_p)(torch.empty(0, dtype=torch.long), scores)  # pyright: ignore[reportArgumentType]
    return scores.softmax(-1)

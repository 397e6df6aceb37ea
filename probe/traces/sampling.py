"""Sampling: several random continuations of each prompt, decoded with a key/value cache."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm
from transformers import TopPLogitsWarper

from probe.hooks import Runner, check_prompts
from probe.models import Model

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
) -> list[list[int]]:
    """Sample continuations of one batch of prompts.

    Args:
        prompts: token ids, one non-empty list for each prompt.
        samples: the number of samples of each prompt.
        max_new_tokens: the maximum number of tokens of a sample.
        generator: a CPU generator that supplies the random numbers.
        temperature: divides the logits; above 0.
        top_p: as in :func:`nucleus`.

    Returns:
        The emitted ids of each sample, with the end token if it was reached; samples of one prompt are adjacent.
    """
    ends = torch.tensor(model.eos_ids, device=model.device)
    out: list[list[int]] = [[] for _ in range(len(prompts) * samples)]
    alive = torch.arange(len(out))
    runner = Runner(model, prompts, max_new_tokens)
    logits = runner.prefill().logits.repeat_interleave(samples, 0)
    runner.repeat(samples)
    for i in range(max_new_tokens):
        tokens = torch.multinomial(nucleus(logits, temperature, top_p).cpu(), 1, generator=generator)[:, 0]
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
            )
            for place, tail in enumerate(tails):
                ended = bool(tail) and tail[-1] in model.eos_ids
                found[some[place // samples]].append(tail[:-1] if ended else tail)
            bar.update(len(some))
    return found


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

"""Checks that a server runs the claimed model and samples as requested.

Servers compute in another precision and with other kernels, so their answers are not compared token by token. Instead,
the model that is loaded here gives the probabilities of the tokens that a server wrote. A greedy token must be among
the most likely ones. Sampled tokens must be about as likely as the distribution says: the mean of their
log-probabilities has a known expectation and variance. A server with another model, with another temperature, or
without the requested top-k, top-p or min-p does not match them.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.errors import ProbeError
from probe.hooks import force, forced_pass
from probe.models import Model, Sampling
from probe.servers import Servers
from probe.traces.answers import ask_for, emitted
from probe.traces.sampling import probabilities

_PROMPTS, _TOKENS = 4, 64
"""How many prompts are continued, and the maximum number of tokens of a continuation."""
_NEAR = 0.5
"""By how many nats a greedy token may be less likely than the most likely token."""
_STRAY = 0.02
"""The largest share of tokens that may be less likely than that; a few are where an earlier step was a near tie."""
_DEVIATIONS = 5.0
"""By how many standard deviations the mean log-probability of sampled tokens may differ from its expectation."""
_OUTSIDE = 0.05
"""The largest share of sampled tokens that top-k, top-p or min-p removes here; a few lie near the threshold."""


def check_servers(
    model: Model, servers: Servers, prompts: Sequence[Sequence[int]], max_new_tokens: int, sampling: Sampling
) -> None:
    """Check every server on continuations of some prompts.

    Args:
        model: the model that the servers should run, loaded here.
        servers: the servers.
        prompts: token ids of the prompts that will be asked; a few of them are used.
        max_new_tokens: the maximum number of tokens of an answer.
        sampling: how tokens are to be chosen.

    Raises:
        ProbeError: if a server runs another model, or chooses tokens in another way.
    """
    step = max(1, len(prompts) // _PROMPTS)
    chosen = list(prompts)[::step][:_PROMPTS]
    for server in servers.servers:
        # Two samples of each prompt, because a server that ignores the seed may give the same answer twice.
        keys = [(at, number) for at in range(len(chosen)) for number in range(1 if sampling.greedy else 2)]
        limit = min(_TOKENS, max_new_tokens)
        asks = [ask_for(model, chosen[at], limit, sampling, number + 1, by_ids=servers.by_ids) for at, number in keys]
        answers = dict(Servers([server], servers.config).answers(enumerate(asks)))
        texts = [
            emitted(model, asks[i].ids, answers[i], limit, "a continuation of a prompt")[0] for i in range(len(asks))
        ]
        where = f"the server at {server.client.url}"
        some = [(prompts_of, text) for prompts_of, text in zip([ask.ids for ask in asks], texts, strict=True) if text]
        if not some:
            raise ProbeError(f"{where} answers every prompt with nothing; is it a server of {model.name}?")
        if sampling.greedy:
            _check_greedy(model, some, where)
        else:
            _check_sampled(model, some, sampling, where)
            _check_seeds(model, [texts[i : i + 2] for i in range(0, len(texts), 2)], sampling, where)


def _each(
    model: Model,
    some: Sequence[tuple[Sequence[int], Sequence[int]]],
    read: Callable[[Float[Tensor, "n vocab"], Int[Tensor, " n"]], Tensor],
) -> Float[Tensor, "tokens values"]:
    """Apply a function to the logits that predict each token, one text at a time."""
    found = []
    for prompt, text in some:
        forced = force(model, [list(prompt)], [list(text)])
        with torch.no_grad():
            found.append(forced_pass(model, forced).over_logits(read)[0].cpu())
    return torch.cat(found)


def _check_greedy(model: Model, some: Sequence[tuple[Sequence[int], Sequence[int]]], where: str) -> None:
    def below(logits: Float[Tensor, "n vocab"], tokens: Int[Tensor, " n"]) -> Float[Tensor, "n 1"]:
        logits = logits.float()
        return (logits.max(-1, keepdim=True).values - logits.gather(-1, tokens[:, None])).double()

    gaps = _each(model, some, below)[:, 0]
    stray = (gaps > _NEAR).double().mean().item()
    if stray > _STRAY:
        raise ProbeError(
            f"{where} does not run {model.name} greedily: {stray:.0%} of the tokens that it wrote are not among "
            "the most likely ones here; is it another model, another checkpoint, or a coarse quantisation?"
        )


def _check_sampled(
    model: Model, some: Sequence[tuple[Sequence[int], Sequence[int]]], sampling: Sampling, where: str
) -> None:
    def moments(logits: Float[Tensor, "n vocab"], tokens: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        chances = probabilities(logits, sampling).double()
        logs = chances.clamp_min(1e-300).log()
        mean = (chances * logs).sum(-1)
        variance = (chances * (logs - mean[:, None]) ** 2).sum(-1)
        return torch.stack([logs.gather(-1, tokens[:, None])[:, 0], mean, variance], -1)

    found, mean, variance = _each(model, some, moments).unbind(-1)
    outside = found < -600
    inside = ~outside
    deviation = ((found - mean)[inside].sum() / variance[inside].sum().add(1e-6).sqrt()).item()
    if outside.double().mean().item() > _OUTSIDE or abs(deviation) > _DEVIATIONS:
        how = f"{outside.double().mean().item():.0%} of its tokens could not have been sampled"
        if outside.double().mean().item() <= _OUTSIDE:
            how = f"its tokens are too {'likely' if deviation > 0 else 'unlikely'} by {abs(deviation):.0f} deviations"
        raise ProbeError(
            f"{where} does not sample {model.name} with {sampling} ({how}); is it another model, or a server that "
            "ignores the sampling settings?"
        )


def _check_seeds(model: Model, pairs: Sequence[Sequence[Sequence[int]]], sampling: Sampling, where: str) -> None:
    if all(list(one) == list(other) for one, other in pairs) and sum(len(one) for one, _ in pairs) > _TOKENS:
        raise ProbeError(
            f"{where} writes the same text for every seed when it samples {model.name} with {sampling}, so all samples "
            "would be equal; give one sample and temperature 0, or another server"
        )

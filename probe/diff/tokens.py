"""Two models on the same text, token by token: divergence, entropy, and its running mean."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probe.anchors import log_probs
from probe.models import Pair
from probe.problems import Problem
from probe.traces import Trace


@dataclass(frozen=True)
class TokenTrace:
    """What each emitted token was predicted by, in both models.

    Attributes:
        tokens: as text.
        kl: KL divergence of the base's distribution from the thinking model's, in nats.
        base_entropy, thinking_entropy: in nats.
        agree: whether both would have said the same.
    """

    tokens: tuple[str, ...]
    kl: Float[Tensor, " tokens"]
    base_entropy: Float[Tensor, " tokens"]
    thinking_entropy: Float[Tensor, " tokens"]
    agree: Float[Tensor, " tokens"]

    def peak(self, decay: float = 0.9) -> int:
        """The token at which the running mean of the thinking model's entropy is highest (V-Reason, 2510.17045)."""
        return int(running_mean(self.thinking_entropy, decay).argmax())


def running_mean(values: Float[Tensor, " tokens"], decay: float = 0.9) -> Float[Tensor, " tokens"]:
    """Exponential moving average, each value as if the first had come for ever before."""
    found, at = [], values[0]
    for value in values:
        at = decay * at + (1 - decay) * value
        found.append(at)
    return torch.stack(found)


def token_trace(pair: Pair, problem: Problem, trace: Trace) -> TokenTrace:
    """Read a trace by both models, each with its own prompt before it."""
    base, thinking = (log_probs(model, problem, trace) for model in (pair.base, pair.thinking))
    width = min(base.shape[1], thinking.shape[1])
    first, second = base[:, :width], thinking[:, :width]
    before, after = (torch.distributions.Categorical(logits=log_p).entropy() for log_p in (first, second))
    return TokenTrace(
        tuple(pair.thinking.decode([token]) for token in trace.tokens),
        (second.exp() * (second - first)).sum(-1),
        before,
        after,
        (first.argmax(-1) == second.argmax(-1)).float(),
    )

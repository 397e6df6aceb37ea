"""Two models on the same text, token by token: divergence, entropy and its running mean."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probe.anchors import both_log_probs
from probe.models import Pair
from probe.problems import Problem
from probe.traces import Trace, token_texts


@dataclass(frozen=True)
class TokenTrace:
    """Both models' predictions of each emitted token of a trace.

    Attributes:
        tokens: the tokens as text.
        kl: KL(thinking ‖ base), the divergence of the two predicted distributions, in nats.
        base_entropy: entropy of the base's distribution in nats.
        thinking_entropy: entropy of the thinking model's distribution in nats.
        agree: 1 where both models have the same likeliest token, 0 elsewhere.
    """

    tokens: tuple[str, ...]
    kl: Float[Tensor, " tokens"]
    base_entropy: Float[Tensor, " tokens"]
    thinking_entropy: Float[Tensor, " tokens"]
    agree: Float[Tensor, " tokens"]

    def peak(self, decay: float = 0.9) -> int:
        """The token at which the running mean of the thinking model's entropy is highest (V-Reason, 2510.17045).

        Args:
            decay: decay of the running mean for each token.
        """
        return int(running_mean(self.thinking_entropy, decay).argmax())

    def __repr__(self) -> str:
        mean = f", mean KL {float(self.kl.mean()):.3g}" if len(self.kl) else ""
        return f"TokenTrace({len(self.tokens)} tokens{mean})"


_KEPT = 32
"""The most traces that are kept token by token."""


@dataclass(frozen=True)
class TokenShift:
    """Both models' predictions of all emitted tokens of some traces, and the first traces token by token.

    Attributes:
        traces: the first traces; ``shift[0]`` is the first of them.
        n_traces: number of traces.
        tokens: number of tokens.
        kl, base_entropy, thinking_entropy, agree: means over all tokens of the values of :class:`TokenTrace`; NaN
            without tokens.
        largest_kl: the largest divergence at a token.
    """

    traces: tuple[TokenTrace, ...]
    n_traces: int
    tokens: int
    kl: float
    base_entropy: float
    thinking_entropy: float
    agree: float
    largest_kl: float

    @classmethod
    def of(cls, traces: Iterable[TokenTrace]) -> "TokenShift":
        """Sum up traces, of which only the first are kept."""
        names = ("kl", "base_entropy", "thinking_entropy", "agree")
        kept: list[TokenTrace] = []
        n = tokens = 0
        largest, sums = 0.0, torch.zeros(len(names), dtype=torch.float64)
        for each in traces:
            n, tokens = n + 1, tokens + len(each.kl)
            if len(kept) < _KEPT:
                kept.append(each)
            if len(each.kl):
                sums += torch.stack([getattr(each, name).double().sum() for name in names])
                largest = max(largest, float(each.kl.max()))
        kl, before, after, agree = (sums / tokens).tolist()
        return cls(tuple(kept), n, tokens, kl, before, after, agree, largest)

    def __len__(self) -> int:
        return len(self.traces)

    def __getitem__(self, at: int) -> TokenTrace:
        return self.traces[at]

    def __repr__(self) -> str:
        return f"TokenShift({self.tokens} tokens of {self.n_traces} traces, mean KL {self.kl:.3g})"


def running_mean(values: Float[Tensor, " tokens"], decay: float = 0.9) -> Float[Tensor, " tokens"]:
    """Exponential moving average that starts at the first value.

    Args:
        decay: weight of the mean so far; the new value has weight 1 − decay.
    """
    found, at = [], values[0]
    for value in values:
        at = decay * at + (1 - decay) * value
        found.append(at)
    return torch.stack(found)


def token_trace(pair: Pair, problem: Problem, trace: Trace) -> TokenTrace:
    """Compare the predictions of both models along a trace, each with its own prompt before it."""
    parts = [torch.zeros(4, 0)]
    for base, thinking, _ in both_log_probs(pair.base, pair.thinking, problem, trace) if trace.tokens else ():
        before, after = (torch.distributions.Categorical(logits=log_p).entropy() for log_p in (base, thinking))
        kl = (thinking.exp() * (thinking - base)).sum(-1)
        parts.append(torch.stack([kl, before, after, (base.argmax(-1) == thinking.argmax(-1)).float()]).cpu())
    kl, before, after, agree = torch.cat(parts, 1)
    texts = tuple(token_texts(trace.tokens, pair.thinking.decode, pair.thinking.tokenizer))
    return TokenTrace(texts, kl, before, after, agree)

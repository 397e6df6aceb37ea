"""Gates: *where* the base model is steered."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from probe.hybrid.moment import Moment, Needs, Where
from probe.steering import BasePolicy


@dataclass(frozen=True)
class Disagreement(Where):
    """Where the two models' most likely tokens differ (Venhoff et al., 2510.07364)."""

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return moment.base_token != moment.thinking_token

    @property
    def needs(self) -> Needs:
        return Needs(asks="yes")


@dataclass(frozen=True)
class Divergence(Where):
    """Where the thinking model's distribution is further than ``bits`` from the base model's (KL, thinking to base)."""

    bits: float

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        thinking, base = (step.logits.log_softmax(-1) for step in (moment.asked, moment.base))
        return (thinking.exp() * (thinking - base)).sum(-1) > self.bits * math.log(2)

    @property
    def needs(self) -> Needs:
        return Needs(asks="yes")


@dataclass(frozen=True)
class Uncertain(Where):
    """Where the base model's own next-token distribution has more than ``bits`` of entropy."""

    bits: float

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return entropy_bits_of(moment.base.logits) > self.bits


def entropy_bits_of(logits: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """Entropy of next-token distributions, in bits."""
    return torch.distributions.Categorical(logits=logits).entropy() / math.log(2)


@dataclass(frozen=True)
class SentenceStart(Where):
    """The first ``tokens`` of every sentence, and the first ``opening`` of the answer.

    With ``ForceToken`` this is speculative thinking for a base model that does not reason by itself: the thinking model
    writes the beginning of the answer and of every step (Yang et al., 2504.12329, where a step is a paragraph).
    """

    tokens: int = 1
    opening: int = 0

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return (moment.in_sentence < self.tokens) | (moment.counts < self.opening)


@dataclass(frozen=True)
class RandomPositions(Where):
    """Anywhere, at a given rate: the rate-matched control of the gate."""

    rate: float

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return moment.draws[:, 0] < self.rate


@dataclass(frozen=True)
class Never(Where):
    """Nowhere: the base model alone."""

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return torch.zeros_like(moment.counts, dtype=torch.bool)


@dataclass(frozen=True)
class Always(Where):
    """At every token."""

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return torch.ones_like(moment.counts, dtype=torch.bool)


@dataclass(frozen=True)
class LearnedGate(Where):
    """Where a policy says so that reads the base model's own residual stream; nobody is asked."""

    policy: BasePolicy

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return self.policy.gate(moment.base.resid)

    @property
    def needs(self) -> Needs:
        return Needs(base=frozenset(self.policy.layers))

    @property
    def fitted(self) -> tuple[nn.Module, ...]:
        return (self.policy,)

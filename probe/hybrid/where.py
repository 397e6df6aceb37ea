"""Gates, which decide *where* the base model is steered."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from probe.hybrid.closing import Closing
from probe.hybrid.moment import Moment, Needs, Where
from probe.steering import BasePolicy


@dataclass(frozen=True)
class Disagreement(Where):
    """Steer where the two models' most likely tokens differ (Venhoff et al., 2510.07364)."""

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return moment.base_token != moment.thinking_token

    @property
    def needs(self) -> Needs:
        return Needs(asks="yes")


@dataclass(frozen=True)
class Divergence(Where):
    """Steer where the divergence KL(thinking ‖ base) of the next-token distributions is above a threshold.

    Attributes:
        bits: the threshold, in bits.
    """

    bits: float

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        thinking, base = (step.logits.log_softmax(-1) for step in (moment.asked, moment.base))
        return (thinking.exp() * (thinking - base)).sum(-1) > self.bits * math.log(2)

    @property
    def needs(self) -> Needs:
        return Needs(asks="yes")


@dataclass(frozen=True)
class Uncertain(Where):
    """Steer where the entropy of the base model's own next-token distribution is above a threshold.

    Attributes:
        bits: the threshold, in bits.
    """

    bits: float

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return entropy_bits_of(moment.base.logits) > self.bits


def entropy_bits_of(logits: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """Compute the entropy of next-token distributions, in bits."""
    return torch.distributions.Categorical(logits=logits).entropy() / math.log(2)


@dataclass(frozen=True)
class SentenceStart(Where):
    """Steer the first tokens of every sentence, and the first tokens of the answer.

    With ``ForceToken`` this is speculative thinking for a base model that does not reason by itself: the thinking model
    writes the beginning of the answer and of every step (Yang et al., 2504.12329, where a step is a paragraph).

    Attributes:
        tokens: the number of tokens of each sentence.
        opening: the number of tokens at the beginning of the answer.
    """

    tokens: int = 1
    opening: int = 0

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return (moment.in_sentence < self.tokens) | (moment.counts < self.opening)

    @property
    def reads_base(self) -> bool:
        return False


@dataclass(frozen=True)
class Phase(Where):
    """Steer while the text is thinking, or once it is not.

    Attributes:
        close: the closing tag, which belongs to the thinking.
        answer: steer after the tag instead of before its end.
    """

    close: Closing
    answer: bool = False

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        assert moment.history is not None  # the gate says that it needs it
        return (moment.history.closed[self.close] > 0) == self.answer

    @property
    def needs(self) -> Needs:
        return Needs(history=True, closings=frozenset({self.close}))

    @property
    def reads_base(self) -> bool:
        return False


@dataclass(frozen=True)
class RandomPositions(Where):
    """Steer at random positions with a given rate, the rate-matched control of a gate.

    Attributes:
        rate: the probability with which each token is steered.
    """

    rate: float

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return moment.random[:, 0] < self.rate

    @property
    def reads_base(self) -> bool:
        return False


@dataclass(frozen=True)
class Never(Where):
    """Steer nowhere, which is the base model alone."""

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return torch.zeros_like(moment.counts, dtype=torch.bool)

    @property
    def reads_base(self) -> bool:
        return False


@dataclass(frozen=True)
class Always(Where):
    """Steer at every token."""

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return torch.ones_like(moment.counts, dtype=torch.bool)

    @property
    def reads_base(self) -> bool:
        return False


@dataclass(frozen=True)
class LearnedGate(Where):
    """Steer where a policy decides so from the base model's residual stream, without asking the thinking model.

    Attributes:
        policy: from :func:`~probe.steering.learn_policy`.
    """

    policy: BasePolicy

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return self.policy.gate(moment.base.resid)

    @property
    def needs(self) -> Needs:
        return Needs(base=frozenset(self.policy.layers))

    @property
    def fitted(self) -> tuple[nn.Module, ...]:
        return (self.policy,)

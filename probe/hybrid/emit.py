"""What a steered row emits: the base model's token under a shift, or the token of a baseline that shifts nothing."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probe.hybrid.moment import Emit, Emitted, Moment, Needs
from probe.steering import Mechanism


@dataclass(frozen=True)
class AddVector(Emit):
    """The hybrid: shift the base model's residual stream and emit a token of the base model.

    It is the most likely token or, where the base model is sampled, one drawn from the shifted distribution.

    Attributes:
        mechanism: what is added; its ``persistent`` decides whether later tokens see the shifted state.
    """

    mechanism: Mechanism

    def __call__(self, moment: Moment, behaviour: Int[Tensor, " rows"], strength: Float[Tensor, " rows"], /) -> Emitted:
        shift = self.mechanism.shift(moment.base.resid[self.mechanism.layer], strength, behaviour)
        return Emitted(moment.draw(moment.steered(shift, persistent=self.mechanism.persistent)))

    @property
    def steers(self) -> int | None:
        return self.mechanism.layer

    @property
    def fitted(self) -> tuple[nn.Module, ...]:
        return () if self.mechanism.random else (self.mechanism,)


@dataclass(frozen=True)
class SearchShifts(Emit):
    """Try several strengths and windows, and emit the resulting token that the thinking model finds most likely.

    This is the search of Venhoff et al. (2510.07364v1). Later tokens do not see the shifted states. Among equal tokens
    the first candidate counts.

    Attributes:
        mechanism: what is added.
        strengths: factors of the arm's strength, tried with each window.
        windows: numbers of last tokens to shift; None shifts all tokens, including the prompt.
        unsteered: whether the base model's own token is a candidate too, the first.
        at_random: choose a candidate at random, as a control for the choice of the thinking model.
    """

    mechanism: Mechanism
    strengths: tuple[float, ...]
    windows: tuple[int | None, ...] = (None,)
    unsteered: bool = True
    at_random: bool = False

    def __call__(self, moment: Moment, behaviour: Int[Tensor, " rows"], strength: Float[Tensor, " rows"], /) -> Emitted:
        resid = moment.base.resid[self.mechanism.layer]
        shifts = torch.stack([self.mechanism.shift(resid, strength * by, behaviour) for by in self.strengths], 1)
        tried = [moment.draw(moment.tried(shifts, window)) for window in self.windows]
        own = [moment.draw(moment.base.logits)[:, None]] if self.unsteered else []
        candidates = torch.cat([*own, *tried], 1)
        if self.at_random:
            number = candidates.shape[1]
            choice = (moment.random[:, 2] * number).long().clamp_(max=number - 1)
        elif candidates.shape[1] > 1:
            choice = moment.asked.logits.gather(-1, candidates.clamp(min=0)).argmax(-1)
        else:
            choice = torch.zeros_like(moment.counts)
        tokens = candidates.gather(-1, choice[:, None])[:, 0]
        tokens = torch.where((candidates < 0).any(-1), -1, tokens)  # logits that are not finite give no candidate
        return Emitted(tokens, (candidates == tokens[:, None]).int().argmax(-1))

    @property
    def needs(self) -> Needs:
        number = len(self.strengths) * len(self.windows) + self.unsteered
        return Needs(
            asks="choice" if number > 1 and not self.at_random else None,
            window=any(window != 1 for window in self.windows),
        )

    @property
    def steers(self) -> int | None:
        return self.mechanism.layer

    @property
    def fitted(self) -> tuple[nn.Module, ...]:
        return () if self.mechanism.random else (self.mechanism,)


@dataclass(frozen=True)
class Rerank(Emit):
    """Emit, of the base model's most likely tokens, the one that the thinking model finds most likely; add no vector.

    This control measures what the choice by the thinking model gains without steering.

    Attributes:
        among: the number of candidates.
    """

    among: int = 5

    def __call__(self, moment: Moment, *_: Tensor) -> Emitted:
        candidates = moment.base.logits.topk(min(self.among, moment.base.logits.shape[-1]), dim=-1).indices
        choice = moment.asked.logits.gather(-1, candidates).argmax(-1)
        return Emitted(candidates.gather(-1, choice[:, None])[:, 0], choice)

    @property
    def needs(self) -> Needs:
        return Needs(asks="choice")


@dataclass(frozen=True)
class ForceToken(Emit):
    """Emit the thinking model's token, the most likely or a sampled one: the upper limit for every gate."""

    def __call__(self, moment: Moment, *_: Tensor) -> Emitted:
        return Emitted(moment.draw_thinking())

    @property
    def reads_base(self) -> bool:
        return False

    @property
    def draws_thinking(self) -> bool:
        return True

    @property
    def needs(self) -> Needs:
        return Needs(asks="token")


@dataclass(frozen=True)
class FuseLogits(Emit):
    """Emit a token of the mixed logits: proxy tuning with a fixed weight (Fan et al., 2406.15480).

    It is chosen as the base model's tokens are: the most likely one, or one that is sampled.

    Attributes:
        weight: the weight of the thinking model's logits; with 1 the arm is the thinking model.
    """

    weight: float = 0.5

    def __call__(self, moment: Moment, *_: Tensor) -> Emitted:
        return Emitted(moment.draw(torch.lerp(moment.base.logits, moment.asked.logits, self.weight)))

    @property
    def needs(self) -> Needs:
        return Needs(asks="token")

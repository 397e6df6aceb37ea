"""What a steered row emits: what the base model says with a shift, or one of the rivals that shift nothing."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probe.hybrid.moment import Emit, Emitted, Moment, Needs
from probe.steering import Mechanism


@dataclass(frozen=True)
class AddVector(Emit):
    """The hybrid: shift the base model's residual stream and emit its own most likely token.

    Whether later tokens see the shifted state is a property of the mechanism, which was learned for it.
    """

    mechanism: Mechanism

    def __call__(self, moment: Moment, behaviour: Int[Tensor, " rows"], strength: Float[Tensor, " rows"], /) -> Emitted:
        shift = self.mechanism.shift(moment.base.resid[self.mechanism.layer], strength, behaviour)
        return Emitted(moment.steered(shift, persistent=self.mechanism.persistent).argmax(-1))

    @property
    def steers(self) -> int | None:
        return self.mechanism.layer

    @property
    def fitted(self) -> tuple[nn.Module, ...]:
        return () if self.mechanism.random else (self.mechanism,)


@dataclass(frozen=True)
class Judged(Emit):
    """Several strengths and windows are tried, and of the tokens they lead to one is chosen.

    The search of Venhoff et al. (2510.07364v1): the token that the thinking model finds likeliest is emitted. The
    strengths multiply that of the arm. Of equal tokens the first counts. Nothing of a shift stays for later tokens.

    Attributes:
        strengths: tried at each window.
        windows: how many of the last tokens are shifted; None for all, the prompt too.
        unsteered: the base model's own token is a candidate too, the first.
        at_random: choose by drawing instead: what the thinking model's choice is worth is the difference.
    """

    mechanism: Mechanism
    strengths: tuple[float, ...]
    windows: tuple[int | None, ...] = (None,)
    unsteered: bool = True
    at_random: bool = False

    def __call__(self, moment: Moment, behaviour: Int[Tensor, " rows"], strength: Float[Tensor, " rows"], /) -> Emitted:
        resid = moment.base.resid[self.mechanism.layer]
        shifts = torch.stack([self.mechanism.shift(resid, strength * by, behaviour) for by in self.strengths], 1)
        tried = [moment.tried(shifts, window).argmax(-1) for window in self.windows]
        candidates = torch.cat([*([moment.base_token[:, None]] if self.unsteered else []), *tried], 1)
        if self.at_random:
            number = candidates.shape[1]
            choice = (moment.draws[:, 2] * number).long().clamp_(max=number - 1)
        elif candidates.shape[1] > 1:
            choice = moment.asked.logits.gather(-1, candidates).argmax(-1)
        else:
            choice = torch.zeros_like(moment.counts)
        tokens = candidates.gather(-1, choice[:, None])[:, 0]
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
    """No vector at all: of the base model's own ``among`` most likely tokens, the one the thinking model likes best.

    This is what choosing among candidates by the thinking model gains without any steering.
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
    """Emit the thinking model's own token: the upper limit of any gate."""

    def __call__(self, moment: Moment, *_: Tensor) -> Emitted:
        return Emitted(moment.thinking_token)

    @property
    def needs(self) -> Needs:
        return Needs(asks="token")


@dataclass(frozen=True)
class FuseLogits(Emit):
    """The base model's logits plus ``weight`` times what training has added to them.

    Proxy tuning with a fixed weight; at weight 1 a pair of one size is the thinking model (Fan et al., 2406.15480).
    """

    weight: float = 0.5

    def __call__(self, moment: Moment, *_: Tensor) -> Emitted:
        return Emitted(torch.lerp(moment.base.logits, moment.asked.logits, self.weight).argmax(-1))

    @property
    def needs(self) -> Needs:
        return Needs(asks="token")


@dataclass(frozen=True)
class FuseDynamically(Emit):
    """The same, with the weight found for each token on a grid from 0 to 2 (Fan et al., 2406.15480).

    The weight is the one at which the fused distribution is as far from the base model's as the tuned expert's is from
    the untuned expert's, in both directions of the divergence. Here the pair is its own expert, so the weight found is
    1 and the arm the thinking model: a check of the rule rather than a rival.
    """

    steps: int = 20

    def __call__(self, moment: Moment, *_: Tensor) -> Emitted:
        base, thinking = moment.base.logits, moment.asked.logits
        return Emitted(torch.lerp(base, thinking, fusion_weight(base, base, thinking, self.steps)[:, None]).argmax(-1))

    @property
    def needs(self) -> Needs:
        return Needs(asks="token")


def fusion_weight(
    large: Float[Tensor, "rows vocab"],
    small: Float[Tensor, "rows vocab"],
    tuned: Float[Tensor, "rows vocab"],
    steps: int = 20,
) -> Float[Tensor, " rows"]:
    """The weight of ``tuned - small`` that moves ``large`` as far as the small model was moved (all are logits)."""
    wanted = [_divergence(tuned, small), _divergence(small, tuned)]
    weights = torch.linspace(0, 2, 2 * steps + 1, device=large.device)
    missed = []
    for weight in weights:
        fused = large + weight * (tuned - small)
        reached = [_divergence(fused, large), _divergence(large, fused)]
        missed.append(sum((got - want).square() for got, want in zip(reached, wanted, strict=True)))
    return weights[torch.stack(missed).argmin(0)]


def _divergence(of: Float[Tensor, "rows vocab"], to: Float[Tensor, "rows vocab"]) -> Float[Tensor, " rows"]:
    of, to = of.log_softmax(-1), to.log_softmax(-1)
    return (of.exp() * (of - to)).sum(-1)

"""Parts that choose *how strongly* a behaviour is added; see also ``SearchShifts`` in ``emit.py``."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probe.hybrid.moment import HowStrongly, Moment, Needs
from probe.steering import Mechanism


@dataclass(frozen=True)
class LearnedStrength(HowStrongly):
    """The strength that the mechanism's own network computes.

    Attributes:
        mechanism: the mechanism.
    """

    mechanism: Mechanism

    def __call__(self, moment: Moment, behaviour: Int[Tensor, " rows"], /) -> Float[Tensor, " rows"]:
        return self.mechanism.strength(moment.base.resid[self.mechanism.layer], behaviour)

    @property
    def needs(self) -> Needs:
        return Needs(base=frozenset({self.mechanism.layer}))

    @property
    def fitted(self) -> tuple[nn.Module, ...]:
        return (self.mechanism,)


@dataclass(frozen=True)
class FixedStrength(HowStrongly):
    """The same strength at every token.

    Attributes:
        strength: the strength.
    """

    strength: float = 1.0

    def __call__(self, _: Moment, behaviour: Int[Tensor, " rows"], /) -> Float[Tensor, " rows"]:
        return torch.full(behaviour.shape, self.strength, device=behaviour.device)

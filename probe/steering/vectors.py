"""What is learned: one vector a behaviour and how strongly each is added, or a rank-1 adapter for each."""

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probe.steering.mechanism import Mechanism


class BehaviourVectors(Mechanism):
    """One vector a behaviour, and a small network that says how strongly each is added.

    The network reads the base model's own residual stream at the same site: one hidden layer shared by all behaviours,
    one softplus head a behaviour (Venhoff et al., 2510.07364v4). A longer vector with a smaller strength would be the
    same mechanism; :meth:`fold` takes that freedom away.

    Args:
        n_behaviours, d_model, layer, unit, persistent: as of every mechanism; with one behaviour this is the
            single-vector arm.
        hidden: width of the strength network.
    """

    fields: ClassVar[tuple[str, ...]] = (*Mechanism.fields, "hidden")

    def __init__(
        self,
        n_behaviours: int,
        d_model: int,
        layer: int,
        *,
        hidden: int = 32,
        unit: float = 1.0,
        persistent: bool = False,
    ) -> None:
        super().__init__(n_behaviours, d_model, layer, unit=unit, persistent=persistent)
        self.hidden = hidden
        self.strength_in = nn.Linear(d_model, hidden)
        self.strength_out = nn.Linear(hidden, n_behaviours)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(n_behaviours))
        nn.init.zeros_(self.strength_out.weight)
        nn.init.constant_(self.strength_out.bias, 0.54)  # softplus(0.54) = 1: every behaviour starts at strength one

    def strength(self, resid: Float[Tensor, "rows d_model"], behaviour: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """How strongly each row's behaviour is added; positive."""
        hidden = nn.functional.gelu(self.strength_in(resid.to(self.directions.dtype) / self.unit))
        return (nn.functional.softplus(self.strength_out(hidden)) * self.scale).gather(-1, behaviour[:, None])[:, 0]

    @torch.no_grad()
    def fold(self, mean_strength: Float[Tensor, " behaviours"]) -> None:
        """Make the mean strength of each behaviour one, and its vector longer by as much; the shifts stay."""
        mean_strength = mean_strength.to(self.scale)
        self.scale /= mean_strength
        self.directions.mul_(mean_strength[:, None])


class RankOne(Mechanism):
    """A rank-1 adapter a behaviour: the vector is added as far as the state points along a second one, the reader.

    ``shift = strength * (resid · reader / unit + bias) * vector``, with strength one: the "residual LoRA" of
    Venhoff et al. (2510.07364v1), with a bias, so that it can also be a plain vector.
    """

    def __init__(
        self, n_behaviours: int, d_model: int, layer: int, *, unit: float = 1.0, persistent: bool = False
    ) -> None:
        super().__init__(n_behaviours, d_model, layer, unit=unit, persistent=persistent)
        self.readers = nn.Parameter(torch.zeros(n_behaviours, d_model))
        self.biases = nn.Parameter(torch.ones(n_behaviours))

    def shift(
        self, resid: Float[Tensor, "rows d_model"], strength: Float[Tensor, " rows"], behaviour: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows d_model"]:
        along = (resid.to(self.readers.dtype) / self.unit * self.readers[behaviour]).sum(-1) + self.biases[behaviour]
        return (strength * along)[:, None] * self.vectors[behaviour]

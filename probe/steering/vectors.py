"""Mechanisms with learned strengths: vectors with a strength network, and rank-1 adapters."""

from pathlib import Path
from typing import Any, ClassVar, NotRequired, TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probe.errors import ProbeError
from probe.steering.mechanism import Mechanism
from probe.steering.saving import load_module


class BehaviourVectors(Mechanism):
    """One vector for each behaviour, and a small network that computes how strongly each is added.

    The network reads the base model's residual stream at the same site. It has one hidden layer shared by all
    behaviours and one softplus head for each (Venhoff et al., 2510.07364v4). A longer vector with a smaller strength
    would be the same mechanism; :meth:`fold` removes that freedom.

    Args:
        n_behaviours, d_model, layer, unit, persistent: see :class:`Mechanism`. With one behaviour this is the mechanism
            of the single-vector arm.
        hidden: width of the hidden layer of the strength network.
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
        """Compute how strongly the behaviour of each row is added; always positive.

        Args:
            resid: the unshifted state of each row.
            behaviour: the behaviour of each row.
        """
        hidden = nn.functional.gelu(self.strength_in(resid.to(self.directions.dtype) / self.unit))
        return (nn.functional.softplus(self.strength_out(hidden)) * self.scale).gather(-1, behaviour[:, None])[:, 0]

    @torch.no_grad()
    def fold(self, mean_strength: Float[Tensor, " behaviours"]) -> None:
        """Rescale strengths and vectors so that the mean strength of each behaviour is one; the shifts stay the same.

        Args:
            mean_strength: the present mean strength of each behaviour.
        """
        mean_strength = mean_strength.to(self.scale)
        self.scale /= mean_strength
        self.directions.mul_(mean_strength[:, None])


class RankOne(Mechanism):
    """A rank-1 adapter for each behaviour: the vector is scaled by the state's projection on a second vector.

    ``shift = strength * (resid · reader / unit + bias) * vector``, with strength one. This is the "residual LoRA" of
    Venhoff et al. (2510.07364v1) with a bias, so that it can also be a plain vector.

    Args:
        n_behaviours, d_model, layer, unit, persistent: see :class:`Mechanism`.
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


class _Settings(TypedDict):
    kind: str
    n_behaviours: int
    d_model: int
    layer: int
    unit: NotRequired[float]
    persistent: NotRequired[bool]
    hidden: NotRequired[int]


def load_mechanism(folder: str | Path) -> Mechanism:
    """Load a mechanism of any class that :meth:`Mechanism.save` wrote; it is frozen.

    Raises:
        ProbeError: if the folder holds no mechanism or a damaged one, or its class is unknown.
    """
    kinds = _subclasses(Mechanism)

    def make(settings: dict[str, Any]) -> Mechanism:
        kind = settings["kind"]
        if kind not in kinds:
            raise ProbeError(f"{Path(folder) / 'mechanism.json'} is of the unknown kind {kind!r}; learn it again")
        return kinds[kind](**{name: settings[name] for name in kinds[kind].fields if name in settings})

    return load_module(make, folder, "mechanism", _Settings)


def _subclasses(kind: type[Mechanism]) -> dict[str, type[Mechanism]]:
    found: dict[str, type[Mechanism]] = {}
    for child in kind.__subclasses__():
        found |= {child.__name__: child, **_subclasses(child)}
    return found

"""The contract of every mechanism (what is added to the base model's residual stream), and fixed vectors."""

import copy
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probe.steering.saving import save_module


class Mechanism(nn.Module):
    """What is added to the base model's residual stream to cause a behaviour.

    For behaviour ``k``, ``shift(resid, strength(resid, k), k)`` is added to ``resid_post.layer``. A subclass overrides
    ``strength`` or ``shift``.

    Args:
        n_behaviours: K, the number of vectors.
        d_model: width of the base model.
        layer: the 0-based steering layer.
        unit: the size of a typical coordinate of the residual stream at the site. Vectors are learned in this unit
            (``directions``), so that one learning rate serves models of any scale.
        persistent: whether later tokens attend to the shifted states; otherwise a shift changes only the logits at its
            own token. A mechanism is learned for one convention, and decoding follows it.
    """

    fields: ClassVar[tuple[str, ...]] = ("n_behaviours", "d_model", "layer", "unit", "persistent")
    """The constructor arguments that :meth:`save` writes beside the tensors."""

    random = False
    """Whether the directions are random, for a control, and not fitted."""

    def __init__(
        self, n_behaviours: int, d_model: int, layer: int, *, unit: float = 1.0, persistent: bool = False
    ) -> None:
        super().__init__()
        self.n_behaviours, self.d_model, self.layer = n_behaviours, d_model, layer
        self.unit, self.persistent = unit, persistent
        self.directions: nn.Parameter = nn.Parameter(torch.zeros(n_behaviours, d_model))

    def __repr__(self) -> str:
        kept = ", persistent" if self.persistent else ""
        return f"{type(self).__name__}({self.n_behaviours} behaviours, resid_post.{self.layer}{kept})"

    @property
    def vectors(self) -> Float[Tensor, "behaviours d_model"]:
        """The vector of each behaviour, in units of the residual stream."""
        return self.directions * self.unit

    def with_vectors(self, vectors: Float[Tensor, "behaviours d_model"]) -> "Mechanism":
        """Copy the mechanism with other vectors; the strengths stay the same."""
        other = copy.deepcopy(self)
        own = self.directions
        other.directions = nn.Parameter(vectors.detach().to(own) / self.unit, requires_grad=own.requires_grad)
        return other

    @property
    def n_parameters(self) -> int:
        """The number of fitted parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def strength(self, resid: Float[Tensor, "rows d_model"], behaviour: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """Compute how strongly the behaviour of each row is added; here always one.

        Args:
            resid: the unshifted state of each row.
            behaviour: the behaviour of each row.
        """
        return torch.ones(behaviour.shape, device=resid.device)

    def shift(
        self, resid: Float[Tensor, "rows d_model"], strength: Float[Tensor, " rows"], behaviour: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows d_model"]:
        """Compute what is added to the residual stream of each row.

        Args:
            resid: the unshifted state of each row.
            strength: from :meth:`strength`, or any other strength.
            behaviour: the behaviour of each row.
        """
        del resid
        return strength[:, None] * self.vectors[behaviour]

    def save(self, folder: str | Path) -> None:
        """Write ``mechanism.safetensors`` and then ``mechanism.json`` to a folder."""
        settings: dict[str, Any] = {name: getattr(self, name) for name in self.fields}
        site = f"resid_post.{self.layer}"
        save_module(self, folder, "mechanism", {"kind": type(self).__name__, **settings, "site": site})


class FixedVectors(Mechanism):
    """One vector for each behaviour, added with strength one."""

    @classmethod
    def of(
        cls, vectors: Float[Tensor, "behaviours d_model"], layer: int, *, persistent: bool = False
    ) -> "FixedVectors":
        """Make a frozen mechanism of given vectors, in units of the residual stream."""
        n_behaviours, d_model = vectors.shape
        made = cls(n_behaviours, d_model, layer, persistent=persistent).to(vectors.device)
        made.directions = nn.Parameter(vectors.detach().float().clone())
        return made.eval().requires_grad_(False)


def random_like(mechanism: Mechanism, seed: int) -> Mechanism:
    """Make the norm-matched control: each vector becomes a random direction of the same norm, and strengths stay.

    Args:
        mechanism: the mechanism that is copied.
        seed: seeds the directions.
    """
    vectors = mechanism.vectors.detach()
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(vectors.shape, generator=generator).to(vectors)
    made = mechanism.with_vectors(nn.functional.normalize(directions, dim=1) * vectors.norm(dim=1, keepdim=True))
    made.random = True
    return made

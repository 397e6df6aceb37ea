"""Operations for `edit`: small objects that map the old state at a site to a new state.

Each acts on the last axis (``d_model`` at sites of the residual stream), at the tokens that it selects.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from probe.errors import ProbeError
from probe.hooks.selection import Selection, Tokens, brief


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Operation:
    """Base class of all operations."""

    tokens: Tokens | Selection | None = None
    """The tokens it acts on; None for every token."""

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the new state, in the shape of ``hidden``; ``hidden`` itself is not changed."""
        raise NotImplementedError

    def __repr__(self) -> str:
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        shown = (f"{name}={brief(value)}" for name, value in said.items() if value is not None)
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, eq=False, repr=False)
class Add(Operation):
    """Add ``strength * vector``, broadcast to the state (activation addition, Turner et al., arXiv 2308.10248)."""

    vector: Float[Tensor, "*axes"]
    strength: float | Tensor = 1.0

    def __call__(self, hidden: Tensor) -> Tensor:
        plain = isinstance(self.strength, float) and self.strength == 1.0
        return hidden + (self.vector if plain else self.strength * self.vector).to(hidden)


@dataclass(frozen=True, eq=False, repr=False)
class ProjectOut(Operation):
    """Remove the component along one direction, or in the span of several.

    This is directional ablation (Arditi et al., arXiv 2406.11717).

    Raises:
        ProbeError: if the directions are zero or linearly dependent.
    """

    directions: Float[Tensor, " d_model"] | Float[Tensor, "n d_model"]

    def __post_init__(self) -> None:
        basis = torch.atleast_2d(self.directions.detach().double().cpu())
        if torch.linalg.matrix_rank(basis) < len(basis):
            raise ProbeError("the directions to project out are zero or linearly dependent; give independent ones")

    def __call__(self, hidden: Tensor) -> Tensor:
        # In half precision, rounding would leave about a thousandth of the component, in float32 a millionth.
        wide = hidden.float()
        basis = (self._orthonormal() if self.directions.requires_grad else self._basis).to(wide)
        return (wide - wide @ basis @ basis.T).to(hidden.dtype)

    @cached_property
    def _basis(self) -> Float[Tensor, "d_model n"]:
        return self._orthonormal()

    def _orthonormal(self) -> Float[Tensor, "d_model n"]:
        return torch.linalg.qr(torch.atleast_2d(self.directions).float().T).Q


@dataclass(frozen=True, eq=False, repr=False)
class Clamp(Operation):
    """Clamp the coordinate along a direction between two values; equal values set it.

    The direction is normalised to unit length, so the values are in units of the activation.

    Raises:
        ProbeError: if the direction is zero, no bound is given, or ``low`` is above ``high``.
    """

    direction: Float[Tensor, " d_model"]
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise ProbeError("Clamp needs a bound; give low, high, or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ProbeError(f"Clamp got low={self.low} above high={self.high}; swap them")
        if not self.direction.norm() > 0:
            raise ProbeError("the direction to clamp along is zero; give another")

    def __call__(self, hidden: Tensor) -> Tensor:
        wide = hidden.float()
        unit = normalize(self.direction.float(), dim=0).to(wide)
        along = (wide @ unit)[..., None]
        return (wide + (along.clamp(self.low, self.high) - along) * unit).to(hidden.dtype)


@dataclass(frozen=True, eq=False, repr=False)
class Scale(Operation):
    """Multiply the state, or only its component along a direction.

    Raises:
        ProbeError: if the direction is zero.
    """

    factor: float
    direction: Float[Tensor, " d_model"] | None = None

    def __post_init__(self) -> None:
        if self.direction is not None and not self.direction.norm() > 0:
            raise ProbeError("the direction to scale along is zero; give another")

    def __call__(self, hidden: Tensor) -> Tensor:
        if self.direction is None:
            return self.factor * hidden
        wide = hidden.float()
        unit = normalize(self.direction.float(), dim=0).to(wide)
        return (wide + (self.factor - 1.0) * (wide @ unit)[..., None] * unit).to(hidden.dtype)


@dataclass(frozen=True, eq=False, repr=False)
class Swap(Operation):
    """Replace the state by another one, broadcast to its shape: activation patching, or mean ablation."""

    state: Float[Tensor, "*axes"]

    def __call__(self, hidden: Tensor) -> Tensor:
        return self.state.to(hidden).expand_as(hidden)


@dataclass(frozen=True, eq=False, repr=False)
class Apply(Operation):
    """Apply your own function from the old state to the new one."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the new state.

        Raises:
            ProbeError: if the function returns no tensor, or changes its argument in place.
        """
        before = None if hidden.is_inference() else hidden._version
        new = self.function(hidden)
        if not isinstance(new, Tensor):
            raise ProbeError(f"the function of an edit returned {type(new).__name__}; it must return the new tensor")
        if before is not None and hidden._version != before:
            raise ProbeError("the function of an edit works in place; start it with hidden = hidden.clone()")
        return new.to(hidden.dtype)

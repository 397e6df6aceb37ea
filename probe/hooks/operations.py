"""What can be done to an activation: small objects that are called with the old state and give the new one.

Each acts on the last axis (``d_model`` at sites of the residual stream), at the tokens it selects. `edit` takes one
or a list of them, which is carried out in order.
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
    """What all operations share."""

    tokens: Tokens | Selection | None = None
    """Where it acts; None for every token."""

    def __call__(self, hidden: Tensor) -> Tensor:
        """The new state, in the shape of ``hidden``, which is left alone."""
        raise NotImplementedError

    def __repr__(self) -> str:
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        shown = (f"{name}={brief(value)}" for name, value in said.items() if value is not None)
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, eq=False, repr=False)
class Add(Operation):
    """Add ``strength * vector``, broadcast to the state: activation addition (Turner et al., arXiv 2308.10248)."""

    vector: Float[Tensor, "*axes"]
    strength: float | Tensor = 1.0

    def __call__(self, hidden: Tensor) -> Tensor:
        plain = isinstance(self.strength, float) and self.strength == 1.0
        return hidden + (self.vector if plain else self.strength * self.vector).to(hidden)


@dataclass(frozen=True, eq=False, repr=False)
class ProjectOut(Operation):
    """Remove what lies along one direction, or in the span of several.

    Directional ablation: Arditi et al., arXiv 2406.11717.

    Raises:
        ProbeError: if a direction is zero or depends on the others.
    """

    directions: Float[Tensor, " d_model"] | Float[Tensor, "n d_model"]

    def __post_init__(self) -> None:
        basis = torch.atleast_2d(self.directions.detach().double().cpu())
        if torch.linalg.matrix_rank(basis) < len(basis):
            raise ProbeError("the directions to project out are zero or depend on each other; give independent ones")

    def __call__(self, hidden: Tensor) -> Tensor:
        # In half precision the part left over by rounding would be a thousandth of the state, not a millionth.
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
    """Hold the coordinate along a direction between two values; the same value twice sets it.

    The direction is taken at unit length, so the values are in units of the activation.

    Raises:
        ProbeError: if the direction is zero, or no value or a lower one above a higher one is given.
    """

    direction: Float[Tensor, " d_model"]
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise ProbeError("clamp between what? give low, high, or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ProbeError(f"clamp between {self.low} and {self.high}: low is above high")
        if not self.direction.norm() > 0:
            raise ProbeError("the direction to clamp along is zero")

    def __call__(self, hidden: Tensor) -> Tensor:
        wide = hidden.float()
        unit = normalize(self.direction.float(), dim=0).to(wide)
        along = (wide @ unit)[..., None]
        return (wide + (along.clamp(self.low, self.high) - along) * unit).to(hidden.dtype)


@dataclass(frozen=True, eq=False, repr=False)
class Scale(Operation):
    """Multiply the state, or only what lies along a direction.

    Raises:
        ProbeError: if the direction is zero.
    """

    factor: float
    direction: Float[Tensor, " d_model"] | None = None

    def __post_init__(self) -> None:
        if self.direction is not None and not self.direction.norm() > 0:
            raise ProbeError("the direction to scale along is zero")

    def __call__(self, hidden: Tensor) -> Tensor:
        if self.direction is None:
            return self.factor * hidden
        wide = hidden.float()
        unit = normalize(self.direction.float(), dim=0).to(wide)
        return (wide + (self.factor - 1.0) * (wide @ unit)[..., None] * unit).to(hidden.dtype)


@dataclass(frozen=True, eq=False, repr=False)
class Swap(Operation):
    """Put another state in its place, broadcast to its shape: activation patching, or a mean ablation."""

    state: Float[Tensor, "*axes"]

    def __call__(self, hidden: Tensor) -> Tensor:
        return self.state.to(hidden).expand_as(hidden)


@dataclass(frozen=True, eq=False, repr=False)
class Apply(Operation):
    """A function of your own, from the old state to the new one."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, hidden: Tensor) -> Tensor:
        """The new state.

        Raises:
            ProbeError: if the function gives no tensor, or changes the one it was handed.
        """
        before = None if hidden.is_inference() else hidden._version
        new = self.function(hidden)
        if not isinstance(new, Tensor):
            raise ProbeError(f"the function of an edit gave {type(new).__name__}; it must return the new tensor")
        if before is not None and hidden._version != before:
            raise ProbeError("the function of an edit works in place; start it with hidden = hidden.clone()")
        return new.to(hidden.dtype)

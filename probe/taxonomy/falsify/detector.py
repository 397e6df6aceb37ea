"""What the falsification tests need: an object that says which behaviours fire in a raw activation."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor


@runtime_checkable
class Detector(Protocol):
    """Says which behaviours fire in a raw activation, for example a taxonomy, or a direction with a threshold."""

    @property
    def site(self) -> str:
        """The site of the activations, for example ``"resid_post.2"``."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """A few words for each behaviour."""
        ...

    @property
    def n_behaviours(self) -> int:
        """The number of behaviours."""
        ...

    def fires(self, x: Float[Tensor, "sentence d_model"]) -> Bool[Tensor, "sentence behaviour"]:
        """Mark the behaviours that fire in each raw activation: none, one or several."""
        ...

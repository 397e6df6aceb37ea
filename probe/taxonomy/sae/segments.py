"""The latents of several small models side by side in one matrix."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Segments:
    """The columns of each model: model ``i`` has ``sizes[i]`` columns, after those of the models before it.

    >>> segments = Segments((2, 3))
    >>> segments.owner.tolist(), segments.place.tolist()
    ([0, 0, 1, 1, 1], [0, 1, 0, 1, 2])
    """

    def __init__(self, sizes: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.sizes = tuple(sizes)
        lengths = torch.tensor(self.sizes, device=device)
        self.owner: Int[Tensor, " latent"] = torch.arange(len(lengths), device=device).repeat_interleave(lengths)
        """The model of each column."""
        self.starts: Int[Tensor, " model"] = lengths.cumsum(0) - lengths
        self.place: Int[Tensor, " latent"] = torch.arange(self.total, device=device) - self.starts[self.owner]
        """The index of each column within its model."""

    @property
    def total(self) -> int:
        """The number of columns of all models."""
        return sum(self.sizes)

    def slices(self) -> list[slice]:
        """Return the columns of each model."""
        return [slice(start, start + size) for start, size in zip(self.starts.tolist(), self.sizes, strict=True)]

    def padded(self, values: Float[Tensor, "*batch latent"], fill: float) -> Float[Tensor, "*batch model slot"]:
        """Give each model a row of its own, padded at the end with ``fill``."""
        out = values.new_full((*values.shape[:-1], len(self.sizes), max(self.sizes)), fill)
        out[..., self.owner, self.place] = values
        return out

    def best(
        self, values: Float[Tensor, "*batch latent"]
    ) -> tuple[Float[Tensor, "*batch model"], Int[Tensor, "*batch model"]]:
        """Return the largest value of each model and its column."""
        value, place = self.padded(values, -torch.inf).max(-1)
        return value, place + self.starts

"""Rows to train on: a torch Dataset, and endless iterators of shuffled batches."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from probe.activations.rows import Rows


class RowDataset(Dataset[Float[Tensor, " width"]]):
    """A torch Dataset of chosen rows, each ``[width]`` in float32.

    Args:
        chosen: which rows to use, in this order.
    """

    def __init__(self, rows: Rows, chosen: Int[Tensor, " chosen"]) -> None:
        self.rows = rows
        self.chosen = chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Float[Tensor, " width"]:
        return self.rows[int(self.chosen[index])].float()

    def __getitems__(self, indices: Sequence[int]) -> list[Float[Tensor, " width"]]:
        """Read several rows at once; a DataLoader calls this for each batch."""
        return list(self.rows[self.chosen[torch.as_tensor(indices)]].float())


def endless(
    rows: Rows, chosen: Int[Tensor, " chosen"], batch_size: int, seed: int
) -> Iterator[Float[Tensor, "batch width"]]:
    """Yield shuffled batches in float32 without end: each round goes through all chosen rows in a new order.

    A batch may hold the end of one round and the beginning of the next, so that every batch is full and no row is left
    out.

    Args:
        seed: seeds the order.
    """
    generator = torch.Generator().manual_seed(seed)
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < batch_size:
            left = torch.cat([left, chosen[torch.randperm(len(chosen), generator=generator)]])
        yield rows[left[:batch_size]].float()
        left = left[batch_size:]


def whole_batches(x: Tensor, batch_size: int, permutation: Callable[[int], Tensor]) -> Iterator[Tensor]:
    """Yield full batches of the rows of a tensor without end, in a new order each round; what is left over is dropped.

    Args:
        x: ``[rows, ...]``.
        batch_size: rows in a batch, at most the rows of ``x``.
        permutation: gives a random order of ``n`` rows.
    """
    while True:
        for chosen in permutation(len(x))[: len(x) // batch_size * batch_size].split(batch_size):
            yield x[chosen.to(x.device)]

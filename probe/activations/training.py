"""Rows as those who train on them want them: a torch Dataset, and an iterator of shuffled batches."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from probe.activations.rows import Rows


class RowDataset(Dataset[Float[Tensor, " width"]]):
    """Some of the rows, each ``[width]`` in float32; of a DataLoader, ``[batch, width]``.

    Args:
        rows: where they lie.
        chosen: which of them, and in which order.
    """

    def __init__(self, rows: Rows, chosen: Int[Tensor, " chosen"]) -> None:
        self.rows = rows
        self.chosen = chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Float[Tensor, " width"]:
        return self.rows[int(self.chosen[index])].float()

    def __getitems__(self, indices: Sequence[int]) -> list[Float[Tensor, " width"]]:
        """What a DataLoader asks for when it makes a batch."""
        return list(self.rows[self.chosen[torch.as_tensor(indices)]].float())


def endless(
    rows: Rows, chosen: Int[Tensor, " chosen"], batch_size: int, seed: int
) -> Iterator[Float[Tensor, "batch width"]]:
    """Batches without end, in float32: all chosen rows in one order, then all in another, and so on.

    A batch may hold the end of one round and the beginning of the next, so that each is full and no row is left out.
    """
    generator = torch.Generator().manual_seed(seed)
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < batch_size:
            left = torch.cat([left, chosen[torch.randperm(len(chosen), generator=generator)]])
        yield rows[left[:batch_size]].float()
        left = left[batch_size:]

"""Training in one process or in several: who does what of a step, and how they agree on its gradient.

Several are started by ``torchrun`` or ``accelerate launch``. Each takes every n-th text of a step; gradients are summed
and divided by the number of tokens of all, so that what is learned does not depend on how many there are.
"""

import os
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")


class Processes:
    """The processes that train together; made by :func:`processes`.

    Attributes:
        rank: of this one.
        count: how many there are.
    """

    def __init__(self) -> None:
        self.rank, self.count, self._state = 0, 1, None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            self._state = PartialState(cpu=not torch.cuda.is_available())
            self.rank, self.count = self._state.process_index, self._state.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes files."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """What this process does of a list."""
        return items[self.rank :: self.count]

    def wait(self) -> None:
        """Until all are here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def total(self, value: float) -> float:
        """The sum of a number over all."""
        return float(self._summed(torch.tensor([value], dtype=torch.float64)))

    def sum_gradients(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give every tensor the sum of its gradients over all; one that has none counts as zero."""
        if self.count == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([(torch.zeros_like(t) if t.grad is None else t.grad).reshape(-1) for t in tensors])
        parts = self._summed(flat).split([t.numel() for t in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.grad = part.view_as(tensor).clone()

    def _summed(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.count == 1:
            return tensor
        from accelerate.utils import reduce

        where: Any = self._state
        made: Any = reduce(tensor.to(where.device), reduction="sum")
        return made.to(tensor.device)


@cache
def processes() -> Processes:
    """Those of this start of the program."""
    return Processes()

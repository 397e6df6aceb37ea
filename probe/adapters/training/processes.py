"""Training in one process or in several: which texts of a step each process takes, and how gradients are summed.

``torchrun`` or ``accelerate launch`` starts several. Each takes every n-th text of a step. Gradients are summed and
divided by the number of tokens in all processes, so the result does not depend on the number of processes.
"""

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator

Item = TypeVar("Item")


def launched_processes() -> int:
    """The number of processes that ``torchrun`` or ``accelerate launch`` started; 1 for a program that runs alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched() -> "Accelerator | None":
    """The accelerator of a program that ``torchrun`` or ``accelerate launch`` started in several processes.

    Returns:
        None in a program that runs alone.
    """
    if launched_processes() == 1:
        return None
    from accelerate import Accelerator

    return Accelerator(cpu=not torch.cuda.is_available())


class Processes:
    """The processes that train one adapter together.

    Args:
        accelerator: connects them; None for one process.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
    """

    def __init__(self, accelerator: "Accelerator | None" = None) -> None:
        self._accelerator: Any = accelerator
        self.rank: int = 0 if accelerator is None else accelerator.process_index
        self.count: int = 1 if accelerator is None else accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items that this process works on."""
        return items[self.rank :: self.count]

    def wait(self) -> None:
        """Wait until every process has come to this call."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()

    def total(self, value: float) -> float:
        """The sum of a number over all processes."""
        return float(self._summed(torch.tensor([value], dtype=torch.float64)))

    def sum_gradients(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace the gradient of each tensor by its sum over all processes; a missing gradient counts as zero."""
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
        return self._accelerator.reduce(tensor.to(self._accelerator.device), reduction="sum").to(tensor.device)

"""Counts the bytes of all tensors that are alive, real or fake, and remembers the highest sum."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """Counts tensors that are made inside its block, on any device; views share the bytes of what they view.

    Views of a tensor that was made before the block are not counted, nor are tensors on the meta device. Neither is
    memory that an operation uses inside itself and returns, nor what the allocator rounds up.

    Attributes:
        now: bytes that are alive.
        peak: the highest value of ``now``.

    >>> with Peak() as held:
    ...     kept = torch.zeros(250)
    ...     gone = torch.zeros(1000).sum()
    >>> held.peak, held.now
    (5004, 1004)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf, counts=False)  # made before the block, such as a weight that is transposed
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf)
        return out

    def _note(self, tensor: torch.Tensor, *, counts: bool = True) -> None:
        storage = tensor.untyped_storage()
        counts = counts and tensor.device.type != "meta"  # a fake tensor says the device that it stands for
        number, size = storage._cdata, storage.nbytes() if counts else 0
        if number in self._alive:
            return

        def gone(_: object) -> None:
            if self._alive.pop(number, None) is not None:
                self.now -= size

        self._alive[number] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)

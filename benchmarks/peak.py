"""Counts the bytes of all tensors that are alive, real or fake, and remembers the highest sum."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """Counts tensors that are made inside its block, on any device; views share the bytes of what they view.

    Memory that an operation uses inside itself and returns is not counted, and neither is what the allocator rounds up.

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
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf)
        return out

    def _note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        number, size = storage._cdata, storage.nbytes()
        if number in self._alive:
            return

        def gone(_: object) -> None:
            if self._alive.pop(number, None) is not None:
                self.now -= size

        self._alive[number] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)

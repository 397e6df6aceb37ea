"""How much memory a device has left, work in parts that fit into it, and what happens when it runs out."""

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from probe.errors import ProbeError

Item = TypeVar("Item")
Made = TypeVar("Made")

_LOG = logging.getLogger("probe")
_SAID = ("DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What plain runtime errors say when memory has run out."""
_HALVINGS = 2
"""How often work is tried again with half the size, after memory ran out."""


def spare_memory(device: torch.device) -> int:
    """Measure the free memory of a device in bytes; for a CPU, what the system can give without swapping."""
    if device.type == "cuda":
        # What torch has taken and does not use is free, too.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    import psutil

    return psutil.virtual_memory().available


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device has too little memory; on a CPU, torch raises a plain RuntimeError."""
    said = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(each in said for each in _SAID)
    )


def halving(work: Callable[[int], Made], size: int, *, device: torch.device, what: str) -> Made:
    """Do work at a size, and with half of that size if memory runs out; twice at most.

    Args:
        work: called with the size, such as a number of rows or tokens. It is called again from the beginning.
        size: the size to begin with, at least 1.
        device: where the work is done.
        what: names the work in messages, such as ``decoding 64 rows``.

    Raises:
        ProbeError: if memory runs out at the smallest size that is tried.
    """
    for left in reversed(range(_HALVINGS + 1)):
        try:
            return work(size)
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
        # Here the frames of the failed attempt, which hold its tensors, are gone.
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if not left or size == 1:
            raise ProbeError(
                f"{device} ran out of memory while {what}, at the smallest size tried ({size}); "
                "free memory there, use a device with more, or set a lower limit on tokens"
            )
        size = max(1, size // 2)
        _LOG.warning("%s ran out of memory while %s; trying again with size %d", device, what, size)
    raise AssertionError("the last attempt returns or raises")


def fitting(items: Sequence[Item], size_of: Callable[[Item], int], room: int) -> Iterator[list[Item]]:
    """Divide items into consecutive groups whose padded size fits.

    Args:
        items: for little padding, sorted by size.
        size_of: the size of an item, such as its number of tokens.
        room: the maximum padded size of a group: the number of its items times the largest size of one. An item that is
            larger is a group of its own.

    >>> list(fitting([1, 2, 3, 3, 9], int, 6))
    [[1, 2], [3, 3], [9]]
    """
    group: list[Item] = []
    widest = 0
    for item in items:
        wider = max(widest, size_of(item))
        if group and wider * (len(group) + 1) > room:
            yield group
            group, wider = [], size_of(item)
        group.append(item)
        widest = wider
    if group:
        yield group

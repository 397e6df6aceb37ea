"""Seeding for libraries that use only torch's global generators."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, *devices: torch.device | str) -> Iterator[None]:
    """Seed torch's global generators for a block, and restore the caller's state after it.

    This serves layers, dropout and trainers of other libraries, which accept no generator. Code that accepts a
    ``torch.Generator`` is given one instead.

    Args:
        seed: seeds every generator in the block.
        devices: the generators of these devices are seeded and restored as well as the CPU's.

    Example:
        >>> with seeded(0):
        ...     first = torch.rand(1)
        >>> with seeded(0):
        ...     bool(torch.rand(1) == first)
        True
    """
    several = [torch.device(device) for device in devices]
    cuda = [device for device in several if device.type == "cuda"]
    with torch.random.fork_rng(devices=cuda):
        # Not torch.manual_seed, which would also seed the devices that are not restored.
        torch.default_generator.manual_seed(seed)
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        if all(device.type != "mps" for device in several):
            yield
            return
        before = torch.mps.get_rng_state()  # fork_rng cannot fork this generator
        torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            torch.mps.set_rng_state(before)

"""Random numbers for libraries that take them from torch's global generator and from nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generators for a block, and restore the caller's state after it.

    For layers, dropout and other libraries' trainers, which accept no generator of their own. Code that can be handed a
    ``torch.Generator`` gets one instead.

    Args:
        seed: of every generator in the block.
        device: whose generator is seeded and restored beside the CPU's.
    """
    device = torch.device(device)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        yield

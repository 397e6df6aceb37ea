"""Half precision for training on CPUs that support it."""

import torch


def autocast() -> torch.autocast:
    """Use bfloat16 on CPUs with AVX-512, where it halves the time.

    Other CPUs emulate it ten times as slowly as float32, so there the context changes nothing.
    """
    return torch.autocast(
        "cpu", dtype=torch.bfloat16, enabled=torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    )

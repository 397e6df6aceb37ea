"""Half precision for training on a CPU, where it has it."""

import torch


def autocast() -> torch.autocast:
    """bfloat16 on CPUs with AVX-512, which halves the time; elsewhere it is emulated, ten times as slow as float32."""
    return torch.autocast(
        "cpu", dtype=torch.bfloat16, enabled=torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    )

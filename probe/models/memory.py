"""How much memory a device has left."""

import torch


def spare_memory(device: torch.device) -> int:
    """Measure the free memory of a device in bytes; for a CPU, what the system can give without swapping."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available

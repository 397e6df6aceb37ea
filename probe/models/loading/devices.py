"""Devices and number formats by name."""

import os

import torch

from probe.errors import ProbeError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def as_device(device: str | torch.device) -> torch.device:
    """Return the device of that name; ``auto`` takes a CUDA GPU if there is one.

    Raises:
        ProbeError: if this machine has no such device.
    """
    if device == "auto":
        own = int(os.environ.get("LOCAL_RANK", "0"))  # each process of torchrun has its own device
        return torch.device("cuda", own) if torch.cuda.is_available() else torch.device("cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ProbeError(f"unknown device '{device}'; use auto, cpu, cuda or cuda:N") from None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    count = there.get(found.type, 0)
    if not count:
        raise ProbeError(f"there is no device '{device}' on this machine; use cpu")
    if (found.index or 0) >= count:
        raise ProbeError(
            f"there is no device '{device}' on this machine; use {found.type}:0 to {found.type}:{count - 1}"
        )
    return found


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Return the torch dtype of that name.

    Raises:
        ProbeError: if models do not run in this number format.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ProbeError(f"unknown dtype '{name}'; use one of {', '.join(_DTYPES)}")
    return _DTYPES[name]

"""The devices of a run: what memory they have, what kind they are, and which model is on which."""

from dataclasses import dataclass, replace

import torch

from probe.engine import engine_of
from probe.models import as_device, spare_memory
from probe.pipeline.plan.work import ROLES
from probe.pipeline.run.config import RunConfig


@dataclass(frozen=True)
class Device:
    """A device.

    Attributes:
        name: as in the settings, such as ``cuda:0``.
        memory: bytes that a run may take; None if that is unknown.
        kind: its row in the table of speeds.
        measured: whether ``memory`` is what is free there now; otherwise it was given.
        pairs: how many processes load their models there.
    """

    name: str
    memory: int | None
    kind: str
    measured: bool = False
    pairs: int = 1

    @property
    def workers(self) -> int:
        """How many of these processes work at the same time; the first waits for the others, if there are others."""
        return max(1, self.pairs - 1)

    @property
    def is_host(self) -> bool:
        """Whether its memory is the machine's own."""
        return self.name.startswith("cpu")


def device_of(name: str, memory: int | None) -> Device:
    """Find a device, and measure its free memory unless its memory is given.

    Args:
        name: as in the settings; ``auto`` takes a CUDA GPU if there is one, or stands for one whose memory is given.
        memory: its bytes; then it need not be of this machine.

    Raises:
        ProbeError: if there is no such device, and no memory is given.
    """
    if memory is not None:
        name = ("cuda" if name == "auto" else name).removesuffix(":0")
        return Device(name, memory, "CPU" if name == "cpu" else "mps" if name == "mps" else _gpu_kind(name))
    found = as_device(name)
    free = None if found.type == "mps" else spare_memory(found)
    kind = {"cpu": "CPU", "mps": "mps"}.get(found.type) or _gpu_kind(str(found))
    return Device(str(found).removesuffix(":0"), free, kind, measured=True)


def devices_of(config: RunConfig, memory: int | None) -> dict[str, Device]:
    """Find the device of each model, by role.

    Args:
        config: the settings of a run; a model may have a device of its own.
        memory: as in :func:`device_of`.
    """
    return {
        role: shared(device_of(getattr(config, f"{role}_device") or config.device, memory), config.engine)
        for role in ROLES
    }


def shared(device: Device, engine: str) -> Device:
    """The device with the processes of an engine on it: they spread over the GPUs, and the first also waits there."""
    asked = engine_of(engine)
    if asked.kind != "processes":
        return device
    spread = 1 if device.is_host else max(1, torch.cuda.device_count())
    return replace(device, pairs=1 + -(-asked.n // spread))


def _gpu_kind(name: str) -> str:
    """The row of the table for a GPU; that for any GPU if it is unknown, or not of this machine."""
    try:
        told = torch.cuda.get_device_name(torch.device(name))
    except (RuntimeError, AssertionError, ValueError):
        return "GPU"
    return next((kind for kind in ("H200", "H100", "A100") if kind in told), "GPU")

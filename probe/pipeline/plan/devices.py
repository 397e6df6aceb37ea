"""The devices of a run: what memory they have, what kind they are, and which model is on which."""

import os
from dataclasses import dataclass, replace

import torch

from probe.engine import engine_of
from probe.errors import ProbeError
from probe.models import DeviceNames, Placement, as_placement, spare_memory
from probe.pipeline.plan.work import ROLES
from probe.pipeline.run.config import RunConfig


@dataclass(frozen=True)
class Device:
    """A device, or several over which the blocks of a model are divided.

    Attributes:
        name: as in the settings, such as ``cuda:0`` or ``cuda:0,cuda:1``.
        memory: bytes that a run may take; None if that is unknown.
        kind: its row in the table of speeds.
        measured: whether ``memory`` is what is free there now; otherwise it was given.
        pairs: how many processes load their models there.
        parts: how many devices these are; ``memory`` is that of all together.
    """

    name: str
    memory: int | None
    kind: str
    measured: bool = False
    pairs: int = 1
    parts: int = 1

    @property
    def workers(self) -> int:
        """How many of these processes work at the same time; the first waits for the others, if there are others."""
        return max(1, self.pairs - 1)

    @property
    def is_host(self) -> bool:
        """Whether its memory is the machine's own."""
        return self.name.startswith("cpu")


def device_of(where: DeviceNames, memory: int | None) -> Device:
    """Find a device, and measure its free memory unless its memory is given.

    Args:
        where: as in the settings; ``auto`` takes a CUDA GPU if there is one, or stands for one whose memory is given.
        memory: its bytes, or those of each of several; then they need not be of this machine.

    Raises:
        ProbeError: if there is no such device, and no memory is given; or if memory is given for ``balanced``, and this
            machine has no GPU.
    """
    if memory is not None:
        return _given(where, memory)
    found = as_placement(where)
    if not isinstance(found, Placement):
        free = None if found.type == "mps" else spare_memory(found)
        return Device(_short(str(found)), free, _kind(str(found)), measured=True)
    if found.modules is None:
        return _several([f"cuda:{gpu}" for gpu in found.gpus], sum(map(_free, found.gpus)), measured=True)
    return _mapped(found, None)


def _given(where: DeviceNames, memory: int) -> Device:
    """The device of that name, or several, with memory that was given for each."""
    if isinstance(where, dict):
        return _mapped(Placement({name: on for name, on in where.items() if name != "offload_folder"}), memory)
    names = [name.strip() for name in where.split(",")]
    if where == "balanced":
        names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        if not names:
            raise ProbeError("this machine has no GPU to count; list those of the other machine, such as cuda:0,cuda:1")
    if len(names) > 1:
        return _several(names, memory * len(names))
    name = _short("cuda" if where == "auto" else where)
    return Device(name, memory, _kind(name))


def _mapped(found: Placement, memory: int | None) -> Device:
    """The devices of a device map; what a run may take is unknown if it offloads weights."""
    on = {f"cuda:{each}" if isinstance(each, int) else each for each in (found.modules or {}).values()}
    on = sorted(on, key=lambda name: (not name.startswith("cuda"), name))
    if len(on) == 1 and on != ["disk"]:
        return device_of(on[0], memory)
    gpus = [name for name in on if name.startswith("cuda")]
    if len(gpus) < len(on):
        return Device(",".join(on), None, _kind(gpus[0] if gpus else "cpu"))
    if memory is not None:
        return _several(gpus, memory * len(gpus))
    return _several(gpus, sum(_free(int(name.partition(":")[2])) for name in gpus), measured=True)


def _several(names: list[str], memory: int, *, measured: bool = False) -> Device:
    return Device(",".join(names), memory, _kind(names[0]), measured=measured, parts=len(names))


def _free(gpu: int) -> int:
    return spare_memory(torch.device("cuda", gpu))


def _short(name: str) -> str:
    return name.removesuffix(":0")


def devices_of(config: RunConfig, memory: int | None) -> dict[str, Device]:
    """Find the device of each model, by role.

    Args:
        config: the settings of a run; a model may have a device of its own.
        memory: as in :func:`device_of`.
    """
    found = {role: device_of(getattr(config, f"{role}_device") or config.device, memory) for role in ROLES}
    one, other = found.values()
    on = [{_short(name) for name in device.name.split(",")} for device in (one, other)]
    if on[0] & on[1] and on[0] != on[1]:  # the models share some: what is known is what both have together
        both = one if len(on[0]) > len(on[1]) else other
        found = dict.fromkeys(ROLES, both)
    return {role: shared(device, config.engine) for role, device in found.items()}


def shared(device: Device, engine: str) -> Device:
    """The device with the processes of an engine on it: they spread over the GPUs, and the first also waits there."""
    asked = engine_of(engine)
    if asked.is_here:
        return device
    gpus = torch.cuda.device_count()
    if asked.kind == "ray":  # an actor for each GPU of the cluster, or for each core where it has no GPU
        return replace(device, pairs=1 + (gpus or os.cpu_count() or 1) if device.is_host else 2)
    spread = 1 if device.is_host else max(1, gpus)
    return replace(device, pairs=1 + -(-asked.n // spread))


def _kind(name: str) -> str:
    """The row of the table for a device; that for any GPU if it is unknown, or not of this machine."""
    if name.startswith(("cpu", "mps")):
        return "CPU" if name.startswith("cpu") else "mps"
    try:
        told = torch.cuda.get_device_name(torch.device(name))
    except (RuntimeError, AssertionError, ValueError):
        return "GPU"
    return next((kind for kind in ("H200", "H100", "A100") if kind in told), "GPU")

"""A model on several devices: the names of placements, and their checks before any weights are read.

accelerate places the modules and moves the states from device to device; transformers reads each weight to its place.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.initialization import no_init_weights

from probe.config import nearest
from probe.errors import ProbeError
from probe.models.loading.devices import as_device
from probe.models.loading.quantised import quantisation_of
from probe.models.loading.source import Source, read_config
from probe.models.memory import spare_memory

Where = str | torch.device | Mapping[str, str | int]
"""A device; ``balanced`` for all GPUs, or several GPUs such as ``cuda:0,cuda:1``; or a device for each module."""

_BALANCED, _FOLDER = "balanced", "offload_folder"
_HOST = ("cpu", "disk")
_FOR_WEIGHTS = 0.9
"""The share of the free memory of a GPU that balanced weights may take."""


@dataclass(frozen=True)
class Placement:
    """The places of a model that is not on one device.

    Attributes:
        modules: the device of each module, as accelerate calls it; None to balance the blocks over GPUs.
        gpus: the numbers of the GPUs over which the blocks are balanced.
        folder: where weights on disk are written that cannot be read from the model's own files.
    """

    modules: Mapping[str, str | int] | None = None
    gpus: tuple[int, ...] = ()
    folder: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What ``from_pretrained`` is called with; what is free on the GPUs is measured now."""
        if self.modules is None:
            room = {gpu: int(_FOR_WEIGHTS * spare_memory(torch.device("cuda", gpu))) for gpu in self.gpus}
            return {"device_map": _BALANCED, "max_memory": room}
        return {"device_map": dict(self.modules), "offload_folder": self.folder}


def as_placement(where: Where) -> torch.device | Placement:
    """Return the device of that name, or the placement on several devices.

    Args:
        where: a device as in :func:`as_device`; ``balanced``, which divides the blocks between all GPUs; GPUs with
            commas between them, to divide the blocks between these; or a device for each module, as accelerate's
            ``device_map``. There, ``cpu`` and ``disk`` hold weights that are copied to the first GPU when they are
            needed, and ``offload_folder`` may name the folder of those that cannot be read from the model's own files.

    Raises:
        ProbeError: if this machine has no such device, or a name is not that of a device.
    """
    if isinstance(where, Mapping):
        return _mapped(where)
    if not isinstance(where, str) or (where != _BALANCED and "," not in where):
        return as_device(where)
    names = [name.strip() for name in where.split(",")]
    if where == _BALANCED:
        names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        if not names:
            raise ProbeError("there is no GPU on this machine to balance a model over; use cpu, or a device map")
    devices = [as_device(name) for name in names]
    if wrong := [name for name, device in zip(names, devices, strict=True) if device.type != "cuda"]:
        raise ProbeError(
            f"a model is balanced over GPUs, and '{wrong[0]}' in '{where}' is not a GPU; give a device map"
        )
    numbers = [device.index or 0 for device in devices]
    if len(set(numbers)) < len(numbers):
        raise ProbeError(f"'{where}' names a device twice; give each once")
    if len(devices) == 1:
        return devices[0]
    return Placement(gpus=tuple(numbers))


def _mapped(where: Mapping[str, str | int]) -> torch.device | Placement:
    modules = {name: device for name, device in where.items() if name != _FOLDER}
    if not modules:
        raise ProbeError("the device map names no module; give a device for each, such as {model.layers.0: cuda:0}")
    found: dict[str, str | int] = {}
    for name, said in modules.items():
        if said == "disk":
            found[name] = "disk"
            continue
        try:
            device = as_device(f"cuda:{said}" if isinstance(said, int) else said)
        except ProbeError as error:
            raise ProbeError(f"the device map puts '{name}' on '{said}': {error}") from None
        # accelerate calls GPUs by their number.
        found[name] = (device.index or 0) if device.type == "cuda" else str(device)
    folder = where.get(_FOLDER)
    return Placement(found, folder=None if folder is None else str(folder))


def check_placement(source: Source, where: torch.device | Placement) -> None:
    """Refuse a device map that does not fit a model, before its weights are read.

    Raises:
        ProbeError: if the map does not name all modules of the model once, divides a weight that two modules share, or
            offloads quantised weights.
    """
    if not isinstance(where, Placement) or where.modules is None or "gguf_file" in source.options:
        return
    config, model = read_config(source), source.config.path
    devices = {*where.modules.values()}
    offloads = "disk" in devices or ("cpu" in devices and len(devices) > 1)
    if source.adapter is not None and source.config.merge and offloads:
        raise ProbeError(
            f"the adapter '{source.adapter.name}' cannot be merged into weights that are offloaded; set merge: false, "
            "or put all modules on devices that hold them"
        )
    if offloads and quantisation_of(config, source.config.quantization) is not None:
        raise ProbeError(f"the weights of '{model}' are quantised and cannot be offloaded; put all modules on GPUs")
    built = _shapes(config, source.config.trust_remote_code)
    known = [name for name, _ in built.named_modules()]
    names = sorted(where.modules)
    for name in names:
        if name not in known:
            raise ProbeError(
                f"the device map names '{name}', which is not a module of '{model}'; {nearest(name, known)}"
            )
        if inside := next((other for other in names if other != name and _holds(name, other)), None):
            raise ProbeError(f"the device map names '{name}' and '{inside}', which is in it; leave one of them out")
    left = [weight for weight in built.state_dict() if not any(_holds(name, weight) for name in names)]
    if left:
        raise ProbeError(
            f"the device map leaves out {len(left)} weights of '{model}', the first is {left[0]}; "
            "give a device for every module"
        )
    device = {
        weight: next(where.modules[name] for name in names if _holds(name, weight)) for weight in built.state_dict()
    }
    for one, other in built.all_tied_weights_keys.items():
        if device[one] != device[other]:
            raise ProbeError(f"{one} and {other} of '{model}' are one weight; the device map must give them one device")


def _holds(module: str, name: str) -> bool:
    """Whether a module holds another or a weight, by their names."""
    return not module or name.startswith(f"{module}.")


def _shapes(config: PretrainedConfig, trust: bool) -> Any:
    with torch.device("meta"), no_init_weights():
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust)


def placed(hf: Any, where: torch.device | Placement, model: str) -> Any:
    """Finish placing a model that was read; returns it.

    Raises:
        ProbeError: if its blocks do not fit on the GPUs over which they are balanced.
    """
    if isinstance(where, torch.device):
        return hf.to(where)
    held = set(getattr(hf, "hf_device_map", {}).values())
    if where.modules is None and held & {*_HOST}:
        names = ",".join(f"cuda:{gpu}" for gpu in where.gpus)
        raise ProbeError(
            f"the weights of '{model}' do not fit into what is free on {names}; "
            "use more GPUs, a smaller dtype, or a device map with cpu"
        )
    return hf

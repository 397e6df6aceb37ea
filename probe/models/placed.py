"""Where the parts of a loaded model are: on one device or several, or offloaded until they are needed.

Between passes, weights that accelerate has offloaded are on the device ``meta``, which holds no numbers. Code that
needs the numbers of a weight, and not only the output of its module, must read them through this file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook
from torch import Tensor, nn
from transformers.integrations.accelerate import load_offloaded_parameter
from transformers.pytorch_utils import Conv1D

from probe.errors import ProbeError


def input_device(hf: Any) -> torch.device:
    """Return the device that a model's input ids go to: that of its embedding when it runs."""
    return working_device(hf.get_input_embeddings())


def devices_of(hf: nn.Module) -> tuple[torch.device, ...]:
    """Return the devices that a model works on, that of its inputs first."""
    parts = [module for module in hf.modules() if any(weight is not None for weight in module._parameters.values())]
    return tuple(dict.fromkeys([input_device(hf), *map(working_device, parts)]))


def working_device(module: nn.Module) -> torch.device:
    """Return the device that a module with weights of its own computes on."""
    hook = getattr(module, "_hf_hook", None)
    device = hook.execution_device if isinstance(hook, AlignDevicesHook) else None
    if device is None:
        return next(module.parameters()).device
    return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)


def is_offloaded(hf: nn.Module) -> bool:
    """Whether some weights are only copied to their device when they are needed."""
    return any(weight.device.type == "meta" for weight in hf.parameters())


def check_not_offloaded(hf: nn.Module, name: str, what: str) -> None:
    """Refuse a model with offloaded weights.

    Args:
        name: the name of the model.
        what: what cannot be done with it; begins the message.

    Raises:
        ProbeError: if some of its weights are offloaded.
    """
    if is_offloaded(hf):
        raise ProbeError(
            f"{what} needs the weights of {name} in memory, but its device map offloads some; "
            "load it on devices that hold them all"
        )


@contextmanager
def standing_in(hf: nn.Module) -> Iterator[None]:
    """Give the offloaded weights of linear layers a device and a shape for a block, without memory and numbers.

    PEFT puts a LoRA on the device of the weight below it, and a LoRA on ``meta`` could not learn; or it places a whole
    model with a device map again.
    """
    linear = [each for each in hf.modules() if isinstance(each, nn.Linear | Conv1D)]
    offloaded: list[Any] = [each for each in linear if each.weight.is_meta]
    weights, placed = [module.weight for module in offloaded], vars(hf).pop("hf_device_map", None)
    try:
        for module in offloaded:
            empty = torch.zeros((), dtype=module.weight.dtype, device=working_device(module))
            module.weight = nn.Parameter(empty.expand(module.weight.shape), requires_grad=False)
        yield
    finally:
        for module, weight in zip(offloaded, weights, strict=True):
            module.weight = weight  # pyright: ignore[reportAttributeAccessIssue]
        if placed is not None:
            vars(hf)["hf_device_map"] = placed


def stored_tensors(hf: Any) -> Iterator[tuple[str, Tensor]]:
    """Go through the state dict of a model; offloaded tensors are read one after the other."""
    for name, tensor in hf.state_dict().items():
        yield name, load_offloaded_parameter(hf, name) if tensor.device.type == "meta" else tensor

"""Two devices that are not there: tensors on ``pretend:0`` and ``pretend:1`` whose values lie on the CPU.

An operation on tensors of two devices raises, as on GPUs, and so does ``numpy``. Importing this registers a device for
the whole process, so tests run it in a process of its own.
"""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from probe.models import Model


class _Devices(backend_registration._DummyBackendModule):
    @staticmethod
    def device_count() -> int:
        return 2

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def current_device() -> int:
        return 0


backend_registration._setup_privateuseone_for_python_backend(
    rename="pretend", backend_module=_Devices(), device_guard=backend_registration._DummyDeviceGuard()
)

_MAY_CROSS = {"aten::_to_copy", "aten::copy_", "aten::_copy_from"}
"""Operations that take tensors of several devices."""


class Elsewhere(torch.Tensor):
    """A tensor that says it is on a pretended device."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device) -> "Elsewhere":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=device,
            requires_grad=inner.requires_grad,
        )
        made.inner = inner
        return made

    def tolist(self) -> Any:
        return self.inner.tolist()

    def item(self) -> Any:
        return self.inner.item()

    def numpy(self, *_: object, **__: object) -> Any:
        raise TypeError(f"a tensor on {self.device} cannot be a NumPy array")

    __array__ = numpy

    def __repr__(self) -> str:
        return f"Elsewhere({self.inner}, {self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _do(func, args, dict(kwargs or {}))


class Pretend(TorchDispatchMode):
    """Lets tensors be made on pretended devices inside its block."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _do(func, args, dict(kwargs or {}))


def _do(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name, tensors = func._schema.name, [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    # A number on the CPU may take part everywhere, as on GPUs.
    devices = {x.device for x in tensors if isinstance(x, Elsewhere) or x.dim() > 0}
    if len(devices) > 1 and name not in _MAY_CROSS:
        raise RuntimeError(f"{name}: tensors on {sorted(map(str, devices))}")
    wanted = kwargs.get("device")
    if wanted is not None:
        kwargs["device"] = torch.device("cpu")
    if name == "aten::copy_":
        device = args[0].device
    else:
        device = _numbered(torch.device(wanted)) if wanted is not None else next(iter(devices), torch.device("cpu"))
    kwargs.pop("pin_memory", None)
    args, kwargs = tree_map(lambda x: x.inner if isinstance(x, Elsewhere) else x, (args, kwargs))
    before = args[0] if args else None
    out = func(*args, **kwargs)
    if device.type == "cpu":
        return out
    if name.endswith("_") and tensors and out is before and isinstance(tensors[0], Elsewhere):
        return tensors[0]
    return tree_map(lambda x: Elsewhere(x, device) if isinstance(x, torch.Tensor) else x, out)


def _numbered(device: torch.device) -> torch.device:
    return torch.device("pretend", 0) if device.type == "pretend" and device.index is None else device


def _empty(size: Any, *, dtype: Any = None, device: Any = None, **_: Any) -> torch.Tensor:
    return Elsewhere(torch.empty(size, dtype=dtype), _numbered(torch.device(device or "pretend")))


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, device: Any = None, **_: Any) -> torch.Tensor:
    return Elsewhere(torch.empty_strided(size, stride, dtype=dtype), _numbered(torch.device(device or "pretend")))


def _copy(source: torch.Tensor, target: torch.Tensor, *_: object) -> torch.Tensor:
    inner = [x.inner if isinstance(x, Elsewhere) else x for x in (source, target)]
    inner[1].copy_(inner[0])
    return target


_LIBRARY = torch.library.Library("aten", "IMPL")
_LIBRARY.impl("empty.memory_format", _empty, "PrivateUse1")
_LIBRARY.impl("empty_strided", _empty_strided, "PrivateUse1")
_LIBRARY.impl("_copy_from", _copy, "PrivateUse1")
_LIBRARY.impl("_copy_from_and_resize", _copy, "PrivateUse1")


def move(model: Model, device: str) -> Model:
    """Put every parameter and buffer of a model on a pretended device."""
    _move(model.hf, device)
    return model


class _Crossing(AlignDevicesHook):
    """accelerate's hook of a module whose weights are on its device already."""

    def init_hook(self, module: torch.nn.Module) -> torch.nn.Module:
        return module


def spread(model: Model, devices: Mapping[str, str]) -> Model:
    """Divide a model between a pretended device and the CPU, as accelerate does by a device map.

    torch's backward pass knows one pretended device only, so the other one is the CPU.

    Args:
        devices: the device of each module, that of the embedding first.
    """
    first = next(iter(devices.values()))
    add_hook_to_module(model.hf, _Crossing(first, io_same_device=True, skip_keys="past_key_values"))
    for name, device in devices.items():
        part = model.hf.get_submodule(name)
        if device != "cpu":
            _move(part, device)
        for module in part.modules():
            add_hook_to_module(module, _Crossing(device, skip_keys="past_key_values"))
    return model


def _move(whole: torch.nn.Module, device: str) -> None:
    for part in whole.modules():
        for name, value in list(part._parameters.items()):
            if value is not None and not isinstance(value, Elsewhere):
                there = Elsewhere(value.data, torch.device(device))
                part._parameters[name] = torch.nn.Parameter(there, requires_grad=False)
        for name, value in list(part._buffers.items()):
            if value is not None:
                part._buffers[name] = Elsewhere(value, torch.device(device))

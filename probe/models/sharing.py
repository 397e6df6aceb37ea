"""Models that share weights, and the weights of layers that an adapter is on.

A twin is a second tree of modules over the same tensors. So a hook, an edit or an adapter on one of two twins is part
of its passes alone, and both take the memory of one model.
"""

import copy
from typing import Any, TypeVar

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

OWN_ADAPTER = "member"
"""The name in PEFT of an adapter that belongs to a model, as against those that are attached to it for a block."""


def twin(hf: M) -> M:
    """Make a model of its own modules and its own config that shares every tensor with another.

    Nothing may write into the tensors of either: the other would change with it. Modules, hooks and adapters of one are
    not seen by the other.

    Args:
        hf: the model or a part of one, on which no capture or edit is open.
    """
    shared: dict[int, Any] = {}
    for module in hf.modules():
        tensors = [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]
        shared |= {id(each): each for each in tensors if isinstance(each, Tensor)}
        # accelerate keeps the weights that it has moved away from a device in the hooks that bring them back.
        hook = vars(module).get("_hf_hook")
        for each in (hook, *getattr(hook, "hooks", ())):
            maps = (getattr(each, name, None) for name in ("weights_map", "tied_params_map"))
            shared |= {id(found): found for found in maps if found is not None}
    return copy.deepcopy(hf, shared)


def adapted_layers(hf: nn.Module) -> dict[str, nn.Module]:
    """Find the layers of a model that an adapter of PEFT is on, by name; modules that it replaces do not count."""
    whole = tuple(f"{name}." for name, module in hf.named_modules() if hasattr(module, _REPLACES))
    return {
        name: module for name, module in hf.named_modules() if _is_adapted(module) and not f"{name}.".startswith(whole)
    }


_REPLACES = "unload_and_optionally_merge_module"
"""Method of PEFT's wrappers of modules that an adapter replaces as a whole."""


def _is_adapted(module: nn.Module) -> bool:
    return all(hasattr(module, name) for name in ("base_layer", "merge", "active_adapters"))


@torch.no_grad()
def merge_layers(hf: nn.Module) -> None:
    """Add what PEFT's adapters compute to the weights of their layers, and take the adapters off.

    The sum is made in float32 for one layer at a time and rounded once to the number format of the weights. Weights
    that an adapter does not change are still those of the model's twins.

    Raises:
        ValueError: if a weight of an adapter is not finite, or a layer is of a kind into which PEFT cannot merge.
    """
    for name, layer in adapted_layers(hf).items():
        above, _, leaf = name.rpartition(".")
        setattr(hf.get_submodule(above), leaf, _merged(layer))
    vars(hf).pop("peft_config", None)


@torch.no_grad()
def weight_of(module: nn.Module, name: str = "weight") -> Tensor:
    """Return a weight of a layer, detached and with the adapter that is on the layer; an offloaded one is read.

    Args:
        module: the module that holds the weight itself, such as a linear layer.
        name: the weight.
    """
    if not _is_adapted(module):
        with align_module_device(module):
            return getattr(module, name).detach()
    layer: Any = module
    with align_module_device(layer.get_base_layer()):
        return getattr(_merged(twin(module)), name).detach()


def _merged(layer: Any) -> nn.Module:
    """The layer below an adapter, with a weight of its own that holds the sum."""
    plain = layer.get_base_layer()
    weight, bias = plain.weight, getattr(plain, "bias", None)
    floating = weight.is_floating_point() and weight.dtype.itemsize > 1
    if floating:
        # PEFT writes into the tensors; those of a twin, or of an embedding that shares its weight, stay as they are.
        plain.weight = nn.Parameter(weight.detach().to(torch.float32, copy=True), requires_grad=False)
        if isinstance(bias, Tensor):
            plain.bias = nn.Parameter(bias.detach().to(torch.float32, copy=True), requires_grad=False)
    layer.merge(safe_merge=True)
    if floating:
        plain.weight = nn.Parameter(plain.weight.detach().to(weight.dtype), requires_grad=False)
        if isinstance(bias, Tensor):
            plain.bias = nn.Parameter(plain.bias.detach().to(bias.dtype), requires_grad=False)
    return plain

"""Write small trained modules to a folder, and read them back."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from probe.config import read_as
from probe.errors import ProbeError
from probe.files import read_tensors, write_json, write_tensors
from probe.models import seeded

M = TypeVar("M", bound=nn.Module)

_LARGEST = 2**24
"""The largest size of anything in a module."""
_FIX = "remove the folder and run the same command again, which makes it again"


def save_module(module: nn.Module, folder: str | Path, name: str, settings: Mapping[str, Any]) -> None:
    """Write ``NAME.safetensors`` and then ``NAME.json``, so that a folder with the JSON file is complete.

    Args:
        settings: what :func:`load_module` makes the module from.
    """
    folder = Path(folder)
    tensors = {key: tensor.detach().contiguous() for key, tensor in module.state_dict().items()}
    write_tensors(folder / f"{name}.safetensors", tensors)
    write_json(folder / f"{name}.json", dict(settings))


def load_module(make: Callable[[dict[str, Any]], M], folder: str | Path, name: str, hint: Any) -> M:
    """Load what :func:`save_module` wrote; the module is frozen.

    Args:
        make: makes the module from its settings. Its initial weights are replaced, and drawing them leaves the caller's
            random state alone.
        hint: the ``TypedDict`` of the settings.

    Raises:
        ProbeError: if a file is missing or damaged, or the two do not fit each other.
    """
    written, weights = (Path(folder) / f"{name}.{ending}" for ending in ("json", "safetensors"))
    settings, tensors = read_as(hint, written, fix=_FIX), read_tensors(weights)
    for key, value in settings.items():
        sizes = value if isinstance(value, list | tuple) else [value]
        least = 0 if key.startswith("layer") else 1
        if any(type(size) is int and not least <= size <= _LARGEST for size in sizes):
            raise ProbeError(f"{written}: {key} cannot be {value}; {_FIX}")
    with torch.device("meta"):  # only shapes: a damaged size must not take all memory
        wanted = {key: tensor.shape for key, tensor in make(dict(settings)).state_dict().items()}
    if wanted != {key: tensor.shape for key, tensor in tensors.items()}:
        raise ProbeError(f"{weights} does not hold the tensors that {written.name} describes; {_FIX}")
    if not all(tensor.is_floating_point() and bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ProbeError(f"{weights} holds numbers that are not finite; {_FIX}")
    with seeded(0):
        made = make(dict(settings))
    made.load_state_dict(tensors)
    return made.eval().requires_grad_(False)


def check_fits(module: Any, where: Path, **wanted: int) -> None:
    """Refuse a module that was made for another model or taxonomy.

    Args:
        module: what was loaded.
        where: the folder that it was loaded from.
        wanted: attributes and what they have to be.

    Raises:
        ProbeError: for the first that differs.
    """
    for name, value in wanted.items():
        if (there := getattr(module, name)) != value:
            raise ProbeError(f"{where} has {name} {there}, and this run {value}; {_FIX}")

"""Write small trained modules to a folder, and read them back."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from probe.files import read_json, read_tensors, write_json, write_tensors
from probe.models import seeded

M = TypeVar("M", bound=nn.Module)


def save_module(module: nn.Module, folder: str | Path, name: str, settings: Mapping[str, Any]) -> None:
    """Write ``NAME.safetensors`` and then ``NAME.json``, so that a folder with the JSON file is complete.

    Args:
        settings: what :func:`load_module` makes the module from.
    """
    folder = Path(folder)
    tensors = {key: tensor.detach().contiguous() for key, tensor in module.state_dict().items()}
    write_tensors(folder / f"{name}.safetensors", tensors)
    write_json(folder / f"{name}.json", dict(settings))


def load_module(make: Callable[[dict[str, Any]], M], folder: str | Path, name: str) -> M:
    """Load what :func:`save_module` wrote; the module is frozen.

    Args:
        make: makes the module from its settings. Its initial weights are replaced, and drawing them leaves the caller's
            random state alone.

    Raises:
        ProbeError: if a file is missing or damaged.
    """
    folder = Path(folder)
    settings = read_json(folder / f"{name}.json")
    with seeded(0):
        made = make(settings)
    made.load_state_dict(read_tensors(folder / f"{name}.safetensors"))
    return made.eval().requires_grad_(False)

"""Measurements that a stage keeps one by one, so that an interrupted stage resumes after the last of them."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probe.circuits import Look, Measured
from probe.engine import KeptFolder, Key
from probe.files import read_json, read_tensors, write_json, write_tensors


class Measurements:
    """Named measurements in a folder; each is a file, which is renamed into place when it is complete.

    Args:
        folder: the folder.
        key: everything that the measurements depend on.

    Raises:
        ProbeError: on use, if the folder keeps measurements of another key.
    """

    def __init__(self, folder: Path, key: Key) -> None:
        self._folder = folder
        self._home = KeptFolder(folder, key, ("*.value.json", "*.value.safetensors"))

    def number(self, name: str, make: Callable[[], float]) -> float:
        """A number that was kept, or is made now."""
        return self._kept(f"{name}.value.json", lambda file: write_json(file, make()), read_json)

    def tensor(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """A tensor that was kept, or is made now."""
        return self._kept(
            f"{name}.value.safetensors", lambda file: write_tensors(file, {"value": make()}), read_tensors
        )["value"]

    def measured(self, name: str, make: Look) -> Measured:
        """What was measured by problem or by pair, for :func:`~probe.circuits.effect_of_heads`."""
        rows = self._kept(f"{name}.value.json", lambda file: write_json(file, _rows(make())), read_json)
        return {
            what: torch.tensor([math.nan if each is None else each for each in some]).double()
            for what, some in rows.items()
        }

    def _kept(self, name: str, write: Callable[[Path], Any], read: Callable[[Path], Any]) -> Any:
        file = self._folder / name
        if not (self._home.check() and file.is_file()):
            with self._home:
                write(file)
        return read(file)  # also what was just made, so that a resumed call sees the same digits


def _rows(measured: Mapping[str, Tensor]) -> dict[str, list[float | None]]:
    """Values that JSON can store."""
    return {name: [None if math.isnan(each) else each for each in some.tolist()] for name, some in measured.items()}

"""The folder of a run: one manifest for each stage, so that a run that is started again does only what is missing."""

import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from probe.config import read_as
from probe.errors import ProbeError
from probe.files import object_hash, write_json

Made = TypeVar("Made")

LIBRARIES = ("torch", "transformers", "sae-lens", "scikit-learn")


class _Manifest(TypedDict):
    inputs: str
    config: Any


class RunFolder:
    """The folder of a run, such as ``runs/NAME``.

    Args:
        path: the folder; it is made if it is missing.
        settings: the settings and the hashes of the inputs. A folder with other settings is refused, so that results
            of two configurations never mix.

    Raises:
        ProbeError: for a folder with other settings (the first one that differs is named), or with other files.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise ProbeError(f"--out {path} is a file: name a folder")
        written = path / "run.json"
        if written.exists():
            before = read_as(dict[str, Any], written, fix="name another folder")
            if object_hash(before) != object_hash(settings):
                raise ProbeError(
                    f"{path} holds a run with other settings ({_difference(before, settings)}): "
                    "give another --out, or remove that folder"
                )
        elif path.exists() and any(path.iterdir()):
            raise ProbeError(f"--out {path} is not empty and holds no run: name another folder")
        else:
            path.mkdir(parents=True, exist_ok=True)
            write_json(written, settings)
        self._key = object_hash(settings)

    def stage(self, name: str, make: Callable[[Path, bool], Made], config: object, seed: int) -> Made:
        """Run a stage, or load it if it is finished.

        Args:
            name: the folder of the stage, below the folder of the run.
            make: called with the folder and whether the stage is finished; returns the object of the stage, and reuses
                what an interrupted call has left in the folder.
            config: the settings of the stage, written into the manifest.
            seed: the seed of the stage, written into the manifest.

        Raises:
            ProbeError: if the stage is finished and was made with other settings.
        """
        # The result depends on the settings of the run and of every stage up to this one.
        self._key = object_hash([name, config, self._key])
        return self._do(name, make, config, seed, self._key)

    def branch(self, name: str, make: Callable[[Path, bool], Made], config: object, seed: int) -> Made:
        """Run a stage on which later stages do not depend, such as one arm of many; see :meth:`stage`."""
        return self._do(name, make, config, seed, object_hash([name, config, self._key]))

    @property
    def key(self) -> str:
        """Identifies the settings of the run and of every stage so far."""
        return self._key

    def has(self, name: str) -> bool:
        """Whether a stage or branch is finished."""
        return (self.path / name / "manifest.json").exists()

    def _do(self, name: str, make: Callable[[Path, bool], Made], config: object, seed: int, key: str) -> Made:
        folder = self.path / name
        manifest = folder / "manifest.json"
        finished = manifest.exists()
        before = read_as(_Manifest, manifest, fix=f"remove {folder} to make it again") if finished else None
        if before is not None and before["inputs"] != key:
            same = object_hash(before["config"]) == object_hash(config)
            what = "of an earlier stage" if same else f"({_difference(before['config'], config, name)})"
            raise ProbeError(
                f"{folder} was made with other settings {what}: remove it and those after it, or give another --out"
            )
        folder.mkdir(parents=True, exist_ok=True)
        made = make(folder, finished)
        if not finished:
            versions = {"python": platform.python_version(), **{library: version(library) for library in LIBRARIES}}
            write_json(manifest, {"stage": name, "inputs": key, "config": config, "seed": seed, "versions": versions})
        return made


def _difference(before: Any, after: Any, where: str = "") -> str:
    """Name the first setting that differs, with both values."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            if object_hash(before.get(key)) != object_hash(after.get(key)):
                return _difference(before.get(key), after.get(key), f"{where}.{key}" if where else str(key))
    return f"{where}: {before!r} there, {after!r} now"

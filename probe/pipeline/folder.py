"""The folder of a run: one manifest a stage, so that a run started again does only what is missing."""

import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from probe.errors import ProbeError
from probe.files import object_hash, read_json, write_json

Made = TypeVar("Made")

LIBRARIES = ("torch", "transformers", "sae-lens", "scikit-learn")


class RunFolder:
    """``runs/NAME``.

    Args:
        path: made if missing.
        settings: the whole configuration and what it was resolved to. A folder that holds a run with other settings is
            refused, so results of two configurations never mix.

    Raises:
        ProbeError: naming the first setting that differs.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise ProbeError(f"--out {path} is a file: name a folder")
        written = path / "run.json"
        if written.exists():
            before = read_json(written)
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
        """Do a stage, or load it if its manifest says that it is finished.

        Args:
            name: the folder below the run.
            make: called with the stage's folder and whether the stage is finished. It gives the stage's object, and
                finds for itself what an earlier call that was killed has left.
            config: the stage's own configuration, written into the manifest.
            seed: likewise.
        """
        # The settings, and every stage up to this one with its own: what its result hangs on.
        self._key = object_hash([name, config, self._key])
        return self._do(name, make, config, seed, self._key)

    def branch(self, name: str, make: Callable[[Path, bool], Made], config: object, seed: int) -> Made:
        """The same for something that later stages do not hang on, such as one arm of many."""
        return self._do(name, make, config, seed, object_hash([name, config, self._key]))

    def has(self, name: str) -> bool:
        """Whether a stage or branch is finished."""
        return (self.path / name / "manifest.json").exists()

    def _do(self, name: str, make: Callable[[Path, bool], Made], config: object, seed: int, key: str) -> Made:
        folder = self.path / name
        manifest = folder / "manifest.json"
        finished = manifest.exists()
        if finished and (before := read_json(manifest))["inputs"] != key:
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
    """The first place where two settings differ, in words."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            if object_hash(before.get(key)) != object_hash(after.get(key)):
                return _difference(before.get(key), after.get(key), f"{where}.{key}" if where else str(key))
    return f"{where}: {before!r} there, {after!r} now"

"""The folder of a run: one manifest for each stage, so that a run that is started again does only what is missing."""

import json
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from probe.config import read_as
from probe.engine import LOCK, FolderLock, difference, remove_empty
from probe.errors import ProbeError
from probe.files import object_hash, read_json, write_json, writing
from probe.pipeline.prompts import PROMPTS

Made = TypeVar("Made")

LIBRARIES = ("torch", "transformers", "sae-lens", "scikit-learn")
LOOK = "look"
"""The folder of a look. Nothing depends on it, so a run that the look stopped may start again with other settings."""
_FORMAT = 2
"""The format of ``run.json``."""


class _Manifest(TypedDict):
    inputs: str
    config: dict[str, Any]


class RunFolder:
    """The folder of a run, such as ``runs/NAME``.

    Nothing is written before the folder is entered, which locks it for this process, or a stage has something to do.

    Args:
        path: the folder; it is made if it is missing.
        settings: the settings and the hashes of the inputs: everything that results depend on. A folder with other
            settings is refused, so that results of two configurations never mix.
        joined: whether another process has locked the folder for this one.
        later: sections of ``settings["config"]`` that may change until the stage of that name is finished.
        result: a file without which nothing in the folder depends on the settings; None if everything does.

    Raises:
        ProbeError: for a folder with other settings (the first one that differs is named), or with other files; on
            entering, if another process writes into it.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        *,
        joined: bool = False,
        later: Sequence[str] = (),
        result: str | None = None,
    ) -> None:
        self.path = path
        self._later, self._result = later, result
        self._stale = False
        self._settings = {"format": _FORMAT, **settings}
        self._lock: AbstractContextManager[Any] = nullcontext() if joined else FolderLock(path)
        with writing(path):
            self._key = self._check()

    def _check(self) -> str:
        """Refuse a folder of something else, and return the key with which the first stage begins."""
        path, written = self.path, self.path / "run.json"
        if path.exists() and not path.is_dir():
            raise ProbeError(f"--out {path} is a file: name a folder")
        if not written.exists():
            if path.exists() and any(file.name != LOCK for file in path.iterdir()):
                raise ProbeError(f"--out {path} is not empty and holds no run: name another folder")
            return self._first_key()
        before = read_as(dict[str, Any], written, fix="name another folder")
        if before.get("format") != _FORMAT:
            raise ProbeError(
                f"{path} was begun by an earlier version: its results and report can be read, but it cannot be "
                "continued; name another folder"
            )
        free = [f"config.{name}" for name in self._later if not self.has(name)]
        said = difference(without(before, *free), without(self._settings, *free))
        self._stale = said is not None and self._only_looked()
        if said is not None and not self._stale and (self._result is None or (path / self._result).exists()):
            raise ProbeError(
                f"{path} holds a run with other settings ({said}): give another --out, or remove that folder"
            )
        return self._first_key()

    def _first_key(self) -> str:
        return object_hash(without(self._settings, *(f"config.{name}" for name in self._later)))

    def _only_looked(self) -> bool:
        """Whether the folder holds a look and no other results."""
        begun = {self.path / name for name in ("run.json", PROMPTS, LOCK)}
        return (self.path / LOOK).is_dir() and all(
            file in begun or self.path / LOOK in file.parents for file in self.path.rglob("*") if file.is_file()
        )

    def _as_written(self) -> Any:
        return json.loads(json.dumps(self._settings))

    def __enter__(self) -> "RunFolder":
        self._lock.__enter__()
        try:
            self._check()  # again: another process may have begun since
            if self._stale:
                shutil.rmtree(self.path / LOOK)
            written = self.path / "run.json"
            if not written.exists() or read_json(written) != self._as_written():
                write_json(written, self._settings)
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        # A request that failed before anything was kept must not keep the folder from the next one.
        written = (self.path / "run.json", self.path / PROMPTS, self.path / LOCK)
        nothing = any(error) and all(file in written for file in self.path.rglob("*") if file.is_file())
        if nothing:
            for file in written[:2]:
                file.unlink(missing_ok=True)
        self._lock.__exit__(*(error or (None, None, None)))
        if nothing:
            remove_empty(self.path)

    def stage(
        self,
        name: str,
        make: Callable[[Path, bool], Made],
        config: Mapping[str, Any],
        seed: int,
        how: Sequence[str] = (),
    ) -> Made:
        """Run a stage, or load it if it is finished.

        Args:
            name: the folder of the stage, below the folder of the run.
            make: called with the folder and whether the stage is finished; returns the object of the stage, and reuses
                what an interrupted call has left in the folder.
            config: the settings of the stage, written into the manifest.
            seed: the seed of the stage, written into the manifest.
            how: settings on which the result does not depend, such as ``decoding.batch_size``.

        Raises:
            ProbeError: if the stage is finished and was made with other settings.
        """
        # The result depends on the settings of the run and of every stage up to this one.
        made, self._key = self._do(name, make, config, seed, how)
        return made

    def branch(
        self,
        name: str,
        make: Callable[[Path, bool], Made],
        config: Mapping[str, Any],
        seed: int,
        how: Sequence[str] = (),
    ) -> Made:
        """Run a stage on which later stages do not depend, such as one arm of many; see :meth:`stage`."""
        return self._do(name, make, config, seed, how)[0]

    @property
    def key(self) -> str:
        """Identifies the settings of the run and of every stage so far."""
        return self._key

    def has(self, name: str) -> bool:
        """Whether a stage or branch is finished."""
        return (self.path / name / _MANIFEST).exists()

    def _do(
        self,
        name: str,
        make: Callable[[Path, bool], Made],
        config: Mapping[str, Any],
        seed: int,
        how: Sequence[str],
    ) -> tuple[Made, str]:
        folder, before = self.path / name, self._key
        manifest = folder / _MANIFEST
        if manifest.exists():
            key = self._fits(manifest, name, config, how)
            try:
                return make(folder, True), key
            except ProbeError as error:
                if str(folder) not in str(error):
                    raise
                raise ProbeError(f"{error} (or delete {folder} and run the same command again)") from None
        with self:
            made = make(folder, False)
            versions = {"python": platform.python_version(), **{library: version(library) for library in LIBRARIES}}
            key = self._key_of(name, config, how, before)
            write_json(manifest, {"stage": name, "inputs": key, "config": config, "seed": seed, "versions": versions})
        return made, key

    def _fits(self, manifest: Path, name: str, config: Mapping[str, Any], how: Sequence[str]) -> str:
        """The key of a finished stage.

        Raises:
            ProbeError: if it was made with other settings, or its manifest is damaged.
        """
        before = read_as(_Manifest, manifest, fix=f"remove {manifest.parent} to make it again")
        said = difference(without(before["config"], *how), without(config, *how), name)
        if said is None and before["inputs"] != self._key_of(name, before["config"], how, self._key):
            said = "of an earlier stage"
        if said is not None:
            raise ProbeError(
                f"{manifest.parent} was made with other settings ({said}): remove it and those after it, "
                "or give another --out"
            )
        return before["inputs"]

    def _key_of(self, name: str, config: Mapping[str, Any], how: Sequence[str], before: str) -> str:
        return object_hash([name, without(config, *how), before])


_MANIFEST = "manifest.json"


def without(settings: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The settings without some, which are named by their section and name.

    >>> without({"device": "cpu", "decoding": {"batch_size": 2, "max_new_tokens": 6}}, "device", "decoding.batch_size")
    {'decoding': {'max_new_tokens': 6}}
    """
    left = dict(settings)
    for name in names:
        section, _, rest = name.partition(".")
        if not rest:
            left.pop(section, None)
        elif isinstance(left.get(section), Mapping):
            left[section] = without(left[section], rest)
    return left

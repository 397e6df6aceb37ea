"""Checks whose work a folder keeps: its key file says what the finished parts depend on."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from probe.engine.lock import FolderLock
from probe.errors import ProbeError
from probe.files import object_hash, read_json, write_json, writing

KEY = "key.json"
"""The name of the key file."""
_FORMAT = 1
_PATIENCE = 5.0
"""Seconds to wait for another process that writes the key, which takes a moment."""
_LIBRARIES = ("probe-interp", "torch", "transformers")

Key = Mapping[str, Any]
"""What kept work depends on, by name: content (as hashes) and settings; never device, batch size or workers."""


class KeptFolder:
    """A folder that keeps parts of some work, for one key and one writer at a time.

    Entering it takes the folder for writing. Reading what it keeps needs :meth:`check` alone.

    Args:
        folder: the folder.
        key: what the parts depend on.
        parts: patterns of the files that are kept there. If the work fails before there is one, nothing stays.
        proof: whether parts without a key, of an earlier version, are known to fit; asked only for those.
    """

    def __init__(
        self, folder: str | Path, key: Key, parts: str | Sequence[str], proof: Callable[[], bool] | None = None
    ) -> None:
        self.folder = Path(folder)
        self.key = dict(key)
        self._parts = (parts,) if isinstance(parts, str) else tuple(parts)
        self._proof = proof
        self._lock = FolderLock(self.folder)

    def check(self) -> bool:
        """Whether the folder has this key; False if nothing is kept yet.

        Raises:
            ProbeError: if the folder keeps the work of another key, or of an unknown one.
        """
        file = self.folder / KEY
        with writing(self.folder):
            missing = not file.is_file()
        if missing:
            if self._any() and not (self._proof and self._proof()):
                raise ProbeError(
                    f"{self.folder} keeps work of an earlier version, which did not record its model and settings; "
                    "remove it, or name another folder"
                )
            return False
        there = read_json(file)
        if not isinstance(there, dict) or there.get("format") != _FORMAT or not isinstance(there.get("key"), dict):
            raise ProbeError(
                f"{file} is not a key file of this version of probe; remove {self.folder}, or name another"
            )
        if (said := difference(there["key"], self.key)) is not None:
            raise ProbeError(
                f"{self.folder} keeps the work of other inputs ({said}); name another folder, or delete this one"
            )
        return True

    def claim(self, *, ours: bool = False) -> None:
        """Write the key if there is none; the folder stays open to other processes that have the same key.

        Args:
            ours: whether what is kept there is known to be of this key, though the key may be missing.

        Raises:
            ProbeError: if the folder keeps the work of another key.
        """
        self._refuse_file()
        if not self._has_key(ours):
            with FolderLock(self.folder, wait=_PATIENCE):
                if not self._has_key(ours):
                    self._write()

    def _has_key(self, ours: bool) -> bool:
        return (self.folder / KEY).is_file() if ours else self.check()

    def forget(self) -> None:
        """Remove the key, and the folder, if nothing is kept there: what failed must not keep others from it."""
        if self.folder.is_dir() and not self._any():
            with FolderLock(self.folder, wait=_PATIENCE):
                if nothing := not self._any():
                    (self.folder / KEY).unlink(missing_ok=True)
            if nothing:
                remove_empty(self.folder)

    def __enter__(self) -> "KeptFolder":
        self._refuse_file()
        self.check()  # a folder of other inputs is refused before anything is written
        self._lock.__enter__()
        try:
            if not self.check():
                self._write()
        except BaseException:
            self._lock.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        # A request that was refused, or failed at once, must not keep the folder from the next one.
        nothing = any(error) and not self._any()
        if nothing:
            (self.folder / KEY).unlink(missing_ok=True)
        self._lock.__exit__(*error)
        if nothing:
            remove_empty(self.folder)

    def _refuse_file(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise ProbeError(f"{self.folder} is a file; name a folder")

    def _any(self) -> bool:
        return self.folder.is_dir() and any(True for parts in self._parts for _ in self.folder.glob(parts))

    def _write(self) -> None:
        write_json(self.folder / KEY, {"format": _FORMAT, "key": self.key, "versions": versions()})


def versions() -> dict[str, str]:
    """The versions of the libraries that kept work may depend on."""
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:  # probe itself, if it is used from its source
            continue
    return found


def remove_empty(folder: Path) -> None:
    """Remove a folder and the folders below it, unless they contain files."""
    for below in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):
            below.rmdir()
    with suppress(OSError):
        folder.rmdir()


def difference(before: Any, after: Any, where: str = "") -> str | None:
    """Name the first value that differs, as ``max_new_tokens: 6 there, 12 now``; None if there is none.

    >>> difference({"seed": 0, "model": {"dtype": "float32"}}, {"seed": 0, "model": {"dtype": "float16"}})
    "model.dtype: 'float32' there, 'float16' now"
    """
    if object_hash(before) == object_hash(after):
        return None
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            said = difference(before.get(key), after.get(key), f"{where}.{key}" if where else str(key))
            if said is not None:
                return said
    if _is_hash(before) or _is_hash(after):
        return f"{where} differs"
    return f"{where}: {before!r} there, {after!r} now"


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) >= 32 and all(letter in "0123456789abcdef" for letter in value)

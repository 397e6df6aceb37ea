"""Work in shards: each shard is a fixed set of items, and its result is one file on any engine.

A shard's file depends on the settings and its items alone, never on who made it or what was made before. The file is
renamed into place when it is complete, and then a done file is written beside it. So a shard may be made twice, by any
process, and a killed process loses at most the shard it was making.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

from probe.config import FIX, as_type, read_as
from probe.engine.kept import KeptFolder, Key, versions
from probe.errors import ProbeError
from probe.files import object_hash, write_json
from probe.progress import progress_bar

SHARD = 256
"""The number of items in a shard, unless the work says otherwise."""
PARTS = ("*.done.json", "part-*.json")
"""The files that say that something is kept: done files, and the parts of an earlier version."""

Row = dict[str, Any]


class _Done(TypedDict):
    key: str
    sha256: str
    seconds: float


class _OldPart(TypedDict):
    seconds: float
    rows: dict[str, Row]


@dataclass(frozen=True)
class Shards:
    """One row for each of ``n`` items, made in shards of consecutive items.

    Attributes:
        n: the number of items, which are numbered from 0.
        work: takes the items of a shard and yields each with its row, which JSON can store, in any order.
        name: the label of the progress bar.
        key: gives everything that the rows depend on, in values that JSON can store; called if there is a folder.
        folder: keeps the shards; None keeps nothing.
        size: the number of items in a shard.
        how: what is recorded of how a shard was made, such as the device; rows do not depend on it.
    """

    n: int
    work: Callable[[Sequence[int]], Iterable[tuple[int, Row]]]
    name: str
    key: Callable[[], Key]
    folder: str | Path | None = None
    size: int = SHARD
    how: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of shards."""
        return -(-self.n // self.size)

    def items(self, number: int) -> range:
        """The items of a shard."""
        return range(number * self.size, min(self.n, (number + 1) * self.size))

    def missing(self) -> list[int]:
        """The shards that the folder does not have; all of them without a folder.

        Raises:
            ProbeError: if the folder keeps rows of another key.
        """
        if self._home is None or not self._home.check():
            return list(range(len(self)))
        if self._old():
            return []
        return [number for number in range(len(self)) if not self._is_there(number)]

    def make(self, number: int, engine: str = "here") -> None:
        """Make one shard and keep it in the folder.

        Args:
            number: the shard, from 0.
            engine: who makes it, recorded in the done file.

        Raises:
            ProbeError: if the folder keeps rows of another key.
        """
        assert self._home is not None  # a shard that nobody keeps would be lost
        if not (self._home.check() and (self._is_there(number) or self._old())):
            self._made(number, engine, None)

    def rows(self, *, progress: bool = False) -> tuple[list[Row], float]:
        """Read the shards that the folder has, make the others, and give all rows.

        Args:
            progress: show a progress bar.

        Returns:
            The rows in the order of the items, and the seconds that the work took on all engines together.

        Raises:
            ProbeError: if the folder keeps rows of another key, or a file in it is damaged.
        """
        rows: list[Row] = []
        seconds = 0.0
        if self._home is not None and self._home.check() and (old := self._old()):
            return old
        show = progress and bool(self.missing())  # reading what is finished takes no time
        with progress_bar(total=self.n, desc=self.name, unit="answer", show=show) as bar:
            for number in range(len(self)):
                found = None if self._home is None else self._read(number)
                if found is None:
                    found = self._made(number, "here", bar)
                else:
                    bar.update(len(found[0]))
                rows += found[0]
                seconds += found[1]
        return rows, seconds

    def _made(self, number: int, engine: str, bar: Any) -> tuple[list[Row], float]:
        if self._home is not None:
            self._home.claim()
        items, found, began = self.items(number), dict[int, Row](), time.perf_counter()
        try:
            for item, row in self.work(items):
                found[item] = row
                if bar is not None:
                    bar.update()
        except BaseException:
            if self._home is not None:
                self._home.forget()
            raise
        rows, seconds = [found[item] for item in items], time.perf_counter() - began
        if self._home is not None:
            # A process that failed may remove the key at any moment before there is a done file.
            self._home.claim()
            file, done = self._files(number)
            data = write_json(file, rows, indent=None).read_bytes()
            told = {"key": self._hash, "sha256": hashlib.sha256(data).hexdigest(), "seconds": seconds}
            write_json(done, {**told, "engine": engine, "how": dict(self.how), "versions": versions()})
            self._home.claim(ours=True)
        return rows, seconds

    def _read(self, number: int) -> tuple[list[Row], float] | None:
        """The rows of a shard and the seconds that it took; None if it is not finished."""
        if not self._is_there(number):
            return None
        file, written = self._files(number)
        done = read_as(_Done, written)
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() != done["sha256"] or done["key"] != self._hash:
            raise ProbeError(f"{file} is not the file that was written there; {FIX}")
        rows = as_type(list[Row], json.loads(data), str(file))
        if len(rows) != len(self.items(number)):
            raise ProbeError(f"{file} has {len(rows)} rows for {len(self.items(number))} items; {FIX}")
        return rows, done["seconds"]

    def _is_there(self, number: int) -> bool:
        return all(file.is_file() for file in self._files(number))

    def _files(self, number: int) -> tuple[Path, Path]:
        assert self.folder is not None
        folder = Path(self.folder)
        return folder / f"{number:05d}.json", folder / f"{number:05d}.done.json"

    @cached_property
    def _home(self) -> KeptFolder | None:
        return None if self.folder is None else KeptFolder(self.folder, self.key(), PARTS)

    @cached_property
    def _hash(self) -> str:
        assert self._home is not None
        return object_hash(self._home.key)

    def _old(self) -> tuple[list[Row], float] | None:
        """The rows that an earlier version kept in parts; None if there are none.

        Raises:
            ProbeError: if they are not complete.
        """
        assert self.folder is not None
        rows: dict[str, Row] = {}
        seconds = 0.0
        for file in sorted(Path(self.folder).glob("part-*.json")):
            part = read_as(_OldPart, file)
            rows |= part["rows"]
            seconds += part["seconds"]
        if not rows:
            return None
        if missing := [item for item in range(self.n) if str(item) not in rows]:
            raise ProbeError(
                f"{self.folder} was begun by an earlier version, which kept {len(rows)} of {self.n} items in another "
                f"order (item {missing[0]} is missing); remove it, and run the same command again"
            )
        return [rows[str(item)] for item in range(self.n)], seconds

"""A folder that a harvest is streamed into: safetensors shards, a Parquet index, and a manifest of what is whole.

``manifest.json`` names the harvest (a hash of its inputs) and, for each finished shard, the hash of its file. A shard
counts only if its file still has that hash, so one that was cut off, damaged or deleted is made again.
"""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors.torch import load_file, save_file
from torch import Tensor

from probe._errors import ProbeError
from probe._files import file_hash, read_json, write_json
from probe.traces.table import read_table, write_table

_MANIFEST, _INDEX = "manifest.json", "index.parquet"


class ShardFolder:
    """The files of one harvest."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def begin(
        cls, folder: Path, key: str, about: dict[str, Any], sites: list[str], n_shards: int, index: pa.Table
    ) -> "ShardFolder":
        """Start a harvest, or go on with the one that is there.

        Args:
            key: a hash of everything the vectors depend on.
            about: what to tell a reader of the manifest.
            index: one row a sentence, in the order of the shards' rows.

        Raises:
            ProbeError: if the folder holds another harvest.
        """
        path = folder / _MANIFEST
        if path.exists():
            store = cls(folder, read_json(path))
            if store.manifest.get("key") != key:
                raise ProbeError(
                    f"{folder} holds the activations of other traces, sites or another model; "
                    "choose another folder or delete it"
                )
            if not store._whole(_INDEX, store.manifest["index"]):
                write_table(folder / _INDEX, index)
                store._note("index", file_hash(folder / _INDEX))
            return store
        write_table(folder / _INDEX, index)
        digest = file_hash(folder / _INDEX)
        manifest = {"key": key, **about, "sites": sites, "n_shards": n_shards, "index": digest, "shards": {}}
        write_json(path, manifest)
        return cls(folder, manifest)

    @classmethod
    def open(cls, folder: Path) -> "ShardFolder":
        """The harvest in a folder.

        Raises:
            ProbeError: if there is none.
        """
        return cls(folder, read_json(folder / _MANIFEST))

    @property
    def sites(self) -> list[str]:
        return self.manifest["sites"]

    @property
    def n_shards(self) -> int:
        return self.manifest["n_shards"]

    def done(self, number: int) -> bool:
        """Whether a shard is there and whole."""
        name = _shard_name(number)
        return name in self.manifest["shards"] and self._whole(name, self.manifest["shards"][name])

    def write(self, number: int, vectors: dict[str, Tensor]) -> None:
        """Keep a finished shard: ``[sentence, d_model]`` per site."""
        name = _shard_name(number)
        part = self.folder / f".{name}.tmp"
        save_file(vectors, part)
        os.replace(part, self.folder / name)
        self._note("shards", self.manifest["shards"] | {name: file_hash(self.folder / name)})

    def read(self, number: int) -> dict[str, Tensor]:
        """A finished shard.

        Raises:
            ProbeError: if it is missing or damaged.
        """
        if not self.done(number):
            raise self._damaged(_shard_name(number))
        return load_file(self.folder / _shard_name(number))

    def index(self) -> pa.Table:
        """One row a sentence: ``trace``, ``sentence``, ``problem_id``, ``text``, in the order of the shards' rows.

        Raises:
            ProbeError: if it is missing or damaged.
        """
        if not self._whole(_INDEX, self.manifest["index"]):
            raise self._damaged(_INDEX)
        return read_table(self.folder / _INDEX)

    def _damaged(self, name: str) -> ProbeError:
        return ProbeError(
            f"{self.folder / name} is missing or damaged; harvest into {self.folder} again to make it anew"
        )

    def _whole(self, name: str, digest: str) -> bool:
        path = self.folder / name
        return path.is_file() and file_hash(path) == digest

    def _note(self, key: str, value: object) -> None:
        self.manifest[key] = value
        write_json(self.folder / _MANIFEST, self.manifest)


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"

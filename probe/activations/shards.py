"""A folder that a harvest is streamed into: safetensors shards, a Parquet index, and a manifest of what is whole.

``manifest.json`` names the harvest (a hash of its inputs) and holds the hash of each finished file. A file counts only
if it still has that hash, so one that was cut off, altered or deleted is made again. The index is written last.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors import safe_open
from safetensors.torch import save_file

from probe.activations.outliers import OutlierReport, Scale
from probe.activations.pooling import Shard
from probe.errors import ProbeError
from probe.files import file_hash, read_json, read_table, write_json, write_table

_MANIFEST, _INDEX, _FORMAT = "manifest.json", "index.parquet", 2


class ShardFolder:
    """The files of one harvest."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def begin(cls, folder: Path, key: str, about: Mapping[str, Any], n_shards: int) -> "ShardFolder":
        """Start a harvest, or go on with the one that is there.

        Args:
            key: a hash of everything the rows depend on.
            about: what to tell a reader of the manifest.

        Raises:
            ProbeError: if the folder holds another harvest.
        """
        path = folder / _MANIFEST
        if not path.exists():
            manifest = {"format": _FORMAT, "key": key, **about, "n_shards": n_shards, "shards": {}}
            write_json(path, manifest)
            return cls(folder, manifest)
        manifest = read_json(path)
        if manifest.get("key") != key:
            raise ProbeError(
                f"{folder} holds the activations of other traces, sites or another model; "
                "choose another folder or delete it"
            )
        for part in folder.glob(".*.tmp"):  # what a kill left half written
            part.unlink()
        return cls(folder, manifest)

    @classmethod
    def open(cls, folder: Path) -> "ShardFolder":
        """The harvest in a folder; each of its files is read once, to see whether it is whole.

        Raises:
            ProbeError: if there is none, it has not ended, or a file is missing or damaged.
        """
        manifest = read_json(folder / _MANIFEST)
        if manifest.get("format") != _FORMAT:
            raise ProbeError(f"{folder} was harvested by another version of probe; delete it and harvest again")
        files = cls(folder, manifest)
        for name in [*map(_shard_name, range(manifest["n_shards"])), _INDEX]:
            if not files._whole(name):
                raise ProbeError(f"{folder / name} is missing or damaged; harvest into {folder} again to make it anew")
        return files

    @property
    def scales(self) -> dict[str, Scale] | None:
        """How large activations are at each site; None before that is known."""
        if "sites" not in self.manifest:
            return None
        return {
            site: Scale(tuple(scale["shape"]), scale["median"], scale["limit"])
            for site, scale in self.manifest["sites"].items()
        }

    def keep_scales(self, scales: Mapping[str, Scale]) -> None:
        self._note("sites", {site: asdict(scale) for site, scale in scales.items()})

    @property
    def ended(self) -> bool:
        """Whether the index is there and whole."""
        return self._whole(_INDEX)

    def done(self, number: int) -> bool:
        """Whether a shard is there and whole."""
        return self._whole(_shard_name(number))

    def write(self, number: int, shard: Shard) -> None:
        """Keep a finished shard."""
        tensors = {
            **shard.vectors,
            **{f"alone/{site}": flags for site, flags in shard.alone.items()},
            **{f"outliers/{site}": found for site, found in shard.outliers.items()},
        }
        name = _shard_name(number)
        part = self.folder / f".{name}.tmp"
        save_file(tensors, part)
        os.replace(part, self.folder / name)
        self._note("shards", self.manifest["shards"] | {name: file_hash(self.folder / name)})

    def shards(self) -> Iterator[Shard]:
        """Every shard, in order. Its tensors are views of the file, which is read where they are touched."""
        sites = list(self.manifest["sites"])
        for number in range(self.manifest["n_shards"]):
            with safe_open(self.folder / _shard_name(number), "pt") as file:
                vectors, alone, outliers = (
                    {site: file.get_tensor(prefix + site) for site in sites} for prefix in ("", "alone/", "outliers/")
                )
            yield Shard(vectors, alone, outliers)

    def end(self, index: pa.Table, outliers: Mapping[str, OutlierReport]) -> None:
        """Write the index, and what was seen of the outlier tokens of each site."""
        write_table(self.folder / _INDEX, index)
        self._note("outliers", {site: asdict(report) for site, report in outliers.items()})
        self._note("index", file_hash(self.folder / _INDEX))

    def index(self) -> pa.Table:
        """One row for each of the shards' rows."""
        return read_table(self.folder / _INDEX)

    def n_bytes(self) -> int:
        """The size of all files."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def _whole(self, name: str) -> bool:
        digest = self.manifest.get("index") if name == _INDEX else self.manifest["shards"].get(name)
        path = self.folder / name
        return digest is not None and path.is_file() and file_hash(path) == digest

    def _note(self, key: str, value: object) -> None:
        self.manifest[key] = value
        write_json(self.folder / _MANIFEST, self.manifest)


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"

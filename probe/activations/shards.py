"""The folder of a harvest: safetensors shards, a Parquet index, and a manifest.

``key.json`` says whose harvest it is, and ``manifest.json`` holds the hash of each finished file. A file
counts as finished only if it still has that hash, so a truncated, changed or deleted file is made again. The index is
written last.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypedDict

import pyarrow as pa
from safetensors import SafetensorError, safe_open

from probe.activations.outliers import OutlierReport, SiteScale
from probe.activations.pooling import Shard
from probe.config import as_type, read_as
from probe.errors import ProbeError
from probe.files import file_hash, read_table, write_json, write_tables, write_tensors

MANIFEST, _INDEX, _FORMAT = "manifest.json", "index.parquet", 2


class _Manifest(TypedDict):
    shards: dict[str, str]


class _Finished(_Manifest):
    model: str
    unit: Literal["sentence", "token"]
    n_shards: int
    index: str
    sites: dict[str, SiteScale]
    outliers: dict[str, OutlierReport]


class ShardFolder:
    """The files of one harvest."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def begin(cls, folder: Path, about: Mapping[str, Any], n_shards: int) -> "ShardFolder":
        """Start a harvest, or resume the one in the folder, which is locked and known to be the same.

        Args:
            about: the settings, recorded in the manifest.
        """
        there = cls.there(folder)
        if there is None:
            manifest = {"format": _FORMAT, **about, "n_shards": n_shards, "shards": {}}
            write_json(folder / MANIFEST, manifest)
            return cls(folder, manifest)
        for part in there.leftovers():
            part.unlink()
        return there

    def leftovers(self) -> list[Path]:
        """Files that an interrupted run has left half written."""
        return list(self.folder.glob(".*.tmp"))

    @classmethod
    def there(cls, folder: Path) -> "ShardFolder | None":
        """The harvest in the folder, finished or not; None if there is none.

        Raises:
            ProbeError: if its manifest is damaged.
        """
        path = folder / MANIFEST
        if not path.is_file():
            return None
        manifest = read_as(_Manifest, path, fix=f"delete {folder} and harvest again")
        return cls(folder, manifest)

    @classmethod
    def open(cls, folder: Path) -> "ShardFolder":
        """Open a finished harvest; each file is read once, to check its hash.

        Raises:
            ProbeError: if there is none, it is unfinished, or a file is missing or damaged.
        """
        files = cls.there(folder)
        if files is None:
            raise ProbeError(f"{folder} holds no harvest: there is no {MANIFEST} in it")
        manifest = files.manifest
        if manifest.get("format") != _FORMAT:
            raise ProbeError(f"{folder} was harvested by another version of probe; delete it and harvest again")
        as_type(_Finished, manifest, str(folder / MANIFEST), fix=f"delete {folder} and harvest again")
        if manifest["n_shards"] != len(manifest["shards"]) or not manifest["shards"]:
            raise ProbeError(f"{folder} lacks shards that its manifest names; delete {folder} and harvest again")
        for name in [*map(_shard_name, range(manifest["n_shards"])), _INDEX]:
            if not files.is_whole(name):
                raise ProbeError(f"{folder / name} is missing or damaged; harvest into {folder} again")
        return files

    @property
    def scales(self) -> dict[str, SiteScale] | None:
        """The size of activations at each site; None if not yet measured."""
        if "sites" not in self.manifest:
            return None
        return as_type(dict[str, SiteScale], self.manifest["sites"], str(self.folder / MANIFEST))

    def keep_scales(self, scales: Mapping[str, SiteScale]) -> None:
        """Record the size of activations at each site."""
        self._note("sites", {site: asdict(scale) for site, scale in scales.items()})

    @property
    def batch_tokens(self) -> int | None:
        """How many tokens were read at once; None if nothing was read yet, or by an earlier version."""
        found = self.manifest.get("batch_tokens")
        return found if isinstance(found, int) and found > 0 else None

    def keep_batch_tokens(self, tokens: int) -> None:
        """Record how many tokens are read at once."""
        if tokens != self.batch_tokens:
            self._note("batch_tokens", tokens)

    @property
    def ended(self) -> bool:
        """Whether the index is finished and undamaged."""
        return self.is_whole(_INDEX)

    @property
    def whole(self) -> bool:
        """Whether the index and every shard are finished and undamaged."""
        return self.ended and all(self.done(number) for number in range(self.manifest["n_shards"]))

    def done(self, number: int) -> bool:
        """Whether a shard is finished and undamaged."""
        return self.is_whole(_shard_name(number))

    def write(self, number: int, shard: Shard) -> None:
        """Write a finished shard."""
        tensors = {
            **shard.vectors,
            **{f"alone/{site}": flags for site, flags in shard.alone.items()},
            **{f"outliers/{site}": found for site, found in shard.outliers.items()},
        }
        name = _shard_name(number)
        write_tensors(self.folder / name, tensors)
        self._note("shards", self.manifest["shards"] | {name: file_hash(self.folder / name)})

    def shards(self) -> Iterator[Shard]:
        """Yield every shard in order; its tensors are views of the file, read when they are used."""
        sites = list(self.manifest["sites"])
        for number in range(self.manifest["n_shards"]):
            path = self.folder / _shard_name(number)
            try:
                with safe_open(path, "pt") as file:
                    vectors, alone, outliers = (
                        {site: file.get_tensor(prefix + site) for site in sites}
                        for prefix in ("", "alone/", "outliers/")
                    )
            except (OSError, SafetensorError) as error:
                raise ProbeError(f"{path} cannot be read ({error}); delete {self.folder} and harvest again") from None
            yield Shard(vectors, alone, outliers)

    def end(self, index: Iterator[pa.Table], outliers: Mapping[str, OutlierReport]) -> None:
        """Write the index, which comes in parts, and the summary of outlier tokens of each site.

        This finishes the harvest.
        """
        write_tables(self.folder / _INDEX, index)
        self._note("outliers", {site: asdict(report) for site, report in outliers.items()})
        self._note("index", file_hash(self.folder / _INDEX))

    def index(self) -> pa.Table:
        """Read the index, which has one line for each row."""
        return read_table(self.folder / _INDEX)

    def n_bytes(self) -> int:
        """The size of all files, in bytes."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def is_whole(self, name: str) -> bool:
        digest = self.manifest.get("index") if name == _INDEX else self.manifest["shards"].get(name)
        path = self.folder / name
        return digest is not None and path.is_file() and file_hash(path) == digest

    def _note(self, key: str, value: object) -> None:
        self.manifest[key] = value
        write_json(self.folder / MANIFEST, self.manifest)


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"

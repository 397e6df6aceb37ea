"""A finished harvest on disk, memory-mapped and ready to train on."""

from collections.abc import Iterator
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.activations.outliers import OutlierReport
from probe.activations.rows import Rows
from probe.activations.shards import ShardFolder
from probe.activations.training import RowDataset, endless
from probe.errors import ProbeError
from probe.models import Site


class ActivationStore:
    """The activations of a finished harvest: one row for each sentence or token, at one or more sites.

    >>> store = ActivationStore.open("runs/acts")  # doctest: +SKIP
    >>> store["resid_post.14"][:1000]  # read from disk only now  # doctest: +SKIP
    >>> batches = store.batches("resid_post.14", 4096, seed=0)  # doctest: +SKIP
    >>> SAETrainer(config, sae, data_provider=batches).fit()  # SAELens  # doctest: +SKIP

    Rows that have only outlier tokens are flagged in the index; datasets and batches leave them out.

    Attributes:
        folder: the folder of the harvest.
        index: one line for each row: ``document``, ``span``, ``start``, ``end`` (tokens), ``name``, ``text``, and
            ``outlier.SITE`` for each site.
        scales: per site, the shape and the median norm of a token's activation.
        outliers: per site, a summary of outlier tokens.
        manifest: the settings of the harvest and the hashes of its files.
    """

    def __init__(self, files: ShardFolder) -> None:
        self.folder = files.folder
        self.manifest: dict[str, Any] = files.manifest
        self.scales = files.scales or {}
        self._files = files
        self.outliers = {site: OutlierReport(**report) for site, report in files.manifest["outliers"].items()}
        self._n_bytes = files.n_bytes()
        shards = list(files.shards())
        self._rows = {site: Rows([shard.vectors[site] for shard in shards]) for site in self.scales}
        self._alone = {site: [shard.alone[site] for shard in shards] for site in self.scales}

    @cached_property
    def index(self) -> pa.Table:
        """One line for each row, read when it is first asked for."""
        return self._files.index()

    @classmethod
    def open(cls, folder: str | Path) -> "ActivationStore":
        """Map a harvest into memory. Each file is read once, to check its hash.

        Raises:
            ProbeError: if the harvest is missing or unfinished, or a file is damaged.
        """
        return cls(ShardFolder.open(Path(folder)))

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self._rows)

    @property
    def unit(self) -> str:
        """Whether a row is a ``sentence`` or a ``token``."""
        return self.manifest["unit"]

    @property
    def model_name(self) -> str:
        return self.manifest["model"]

    def __len__(self) -> int:
        """The number of rows."""
        return sum(map(len, next(iter(self._alone.values()))))

    def __getitem__(self, site: str | Site) -> Rows:
        """The rows of a site, memory-mapped: slice them, or index them with a tensor.

        Raises:
            ProbeError: if the site was not harvested.
        """
        if str(site) not in self._rows:
            raise ProbeError(f"{site} was not harvested into {self.folder}; harvested: {', '.join(self.sites)}")
        return self._rows[str(site)]

    def shape(self, site: str | Site) -> tuple[int, int]:
        """The number of rows and their width; heads are flattened into the width."""
        rows, width = self[site].shape
        return rows, width

    def kept(self, site: str | Site) -> Int[Tensor, " kept"]:
        """The indices of the rows of a site that have tokens other than outliers, in order."""
        self[site]
        return (~torch.cat(self._alone[str(site)])).nonzero()[:, 0]

    def dataset(self, site: str | Site) -> RowDataset:
        """Make a torch ``Dataset`` of the kept rows, each ``[width]`` in float32."""
        return RowDataset(self[site], self.kept(site))

    def batches(self, site: str | Site, batch_size: int, seed: int) -> Iterator[Float[Tensor, "batch width"]]:
        """Yield shuffled batches of the kept rows in float32 without end, as SAELens' ``data_provider``.

        Args:
            seed: seeds the order.

        Raises:
            ProbeError: if the site was not harvested, or no row is kept.
        """
        kept = self.kept(site)
        if not len(kept):
            raise ProbeError(f"all rows at {site} in {self.folder} are outliers, so there is nothing to train on")
        return endless(self[site], kept, batch_size, seed)

    def __repr__(self) -> str:
        return f"ActivationStore({self.folder}: {len(self)} {self.unit}s at {', '.join(self.sites)}, {self._size()})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(site)}</td><td>{' × '.join(map(str, (len(self), *self.scales[site].shape)))}</td>"
            f"<td>{'' if report.median is None else f'{report.median:.3g}'}</td><td>{escape(str(report))}</td></tr>"
            for site, report in self.outliers.items()
        )
        head = "<tr><th>site</th><th>shape</th><th>median norm of tokens</th><th>outlier tokens</th></tr>"
        return f"<div><b>{escape(repr(self))}</b><table>{head}{rows}</table></div>"

    def _size(self) -> str:
        size = float(self._n_bytes)
        for unit in ("B", "kB", "MB", "GB"):
            if size < 1000:
                return f"{size:.3g} {unit}"
            size /= 1000
        return f"{size:.3g} TB"

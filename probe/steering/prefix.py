"""Activations at the steering layer, which do not depend on the vectors.

They are computed when a batch is first used, and kept on disk as long as there is room.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from probe.errors import ProbeError
from probe.files import write_tensors
from probe.hooks import Forced, forced_pass, in_rows
from probe.models import Model, model_hash
from probe.steering.gates import GateBatch

if TYPE_CHECKING:
    from accelerate import Accelerator


def resid_below(base: Model, batch: GateBatch, layer: int) -> Float[Tensor, "rows pos d_model"]:
    """Read ``resid_post.layer`` of the texts of a batch; no layer above it is run.

    Args:
        batch: the texts.
        layer: 0-based.
    """
    site = f"resid_post.{layer}"

    def read(some: Forced) -> tuple[Tensor, ...]:
        return (forced_pass(base, some, site, logits=False).whole[site],)

    return in_rows(base, batch.forced, read, what=f"reading {site}")[0]


class Prefix(Sequence[tuple[GateBatch, Tensor]]):
    """A sequence of batches, each with its residual stream at the steering layer.

    Each batch has a memory-mapped file, which is written when the batch is first used and read from then on. The name
    of a file is a hash of the texts, the layer and the model, so that another training on the same texts reuses it, and
    several processes may share a folder. The files never take more space than they leave free: a batch without a file
    is computed whenever it is used.

    Args:
        layer: the 0-based steering layer.
        folder: holds the files.
    """

    def __init__(self, base: Model, batches: Sequence[GateBatch], layer: int, folder: Path) -> None:
        self.batches, self.device = batches, base.device
        self._base, self._layer, self._folder = base, layer, folder
        self._below = f"{base.dtype} {layer} {model_hash(base)}"
        self._names: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> tuple[GateBatch, Float[Tensor, "rows pos d_model"]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        batch = self.batches[i]
        if i not in self._names:
            self._names[i] = _name_of(batch, self._below)
        file = self._folder / f"{self._names[i]}.safetensors"
        if file.exists():
            with safe_open(file, framework="pt") as opened:
                return batch, opened.get_tensor("resid").to(self.device)
        resid = resid_below(self._base, batch, self._layer).contiguous()
        if _fits(self._folder, resid.nbytes):
            with suppress(ProbeError):  # whatever the disk refuses is computed again
                write_tensors(file, {"resid": resid})
        return batch, resid


def _fits(folder: Path, size: int) -> bool:
    """Whether a folder may grow by so many bytes: it never takes more than it leaves free."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        taken = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        return taken + size <= shutil.disk_usage(folder).free - size
    return False


def share(accelerator: "Accelerator | None") -> tuple[int, int]:
    """The rank of this process and the number of processes."""
    return (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)


@contextmanager
def cache_folder(given: str | Path | None, accelerator: "Accelerator | None") -> Iterator[Path]:
    """Use the given folder, or a temporary one that all processes share and that is removed afterwards."""
    if given is not None or accelerator is None:
        with tempfile.TemporaryDirectory() as made:
            yield Path(made if given is None else given)
        return
    from accelerate.utils import broadcast_object_list

    made = tempfile.TemporaryDirectory() if accelerator.is_main_process else None
    names = [None if made is None else made.name]
    broadcast_object_list(names)
    try:
        yield Path(str(names[0]))
        accelerator.wait_for_everyone()
    finally:
        if made is not None:
            made.cleanup()


def _name_of(batch: GateBatch, below: str) -> str:
    read = hashlib.sha256(f"{below} {tuple(batch.forced.ids.shape)}".encode())
    for tensor in (batch.forced.ids, batch.forced.valid):
        read.update(tensor.cpu().numpy().tobytes())
    return read.hexdigest()[:24]

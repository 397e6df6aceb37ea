"""Activations at the steering layer, which do not depend on the vectors.

They are computed once and kept on disk.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from probe.errors import ProbeError
from probe.files import write_tensors
from probe.hooks import forced_pass
from probe.models import Model, weights_hash
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
    return forced_pass(base, batch.forced, site, logits=False).whole[site]


class Prefix(Sequence[tuple[GateBatch, Tensor]]):
    """A sequence of batches, each with its residual stream at the steering layer.

    Each batch has a memory-mapped file that is read when the batch is used. The name of a file is a hash of the texts,
    the layer and the model, so that another training on the same texts reuses it.

    Args:
        layer: the 0-based steering layer.
        folder: holds the files; all processes must see it.
        accelerator: its processes share the work and wait for each other.

    Raises:
        ProbeError: if a file of another process is missing.
    """

    def __init__(
        self,
        base: Model,
        batches: Sequence[GateBatch],
        layer: int,
        folder: Path,
        *,
        accelerator: "Accelerator | None" = None,
    ) -> None:
        self.batches, self.device = batches, base.device
        below = _name(base, layer)
        self._files = [folder / f"{_name_of(batch, below)}.safetensors" for batch in batches]
        rank, processes = share(accelerator)
        for file, batch in list(zip(self._files, batches, strict=True))[rank::processes]:
            if not file.exists():
                write_tensors(file, {"resid": resid_below(base, batch, layer).contiguous()})
        if accelerator is not None:
            accelerator.wait_for_everyone()
        if missing := [file for file in self._files if not file.exists()]:
            raise ProbeError(f"{missing[0]} is missing; give a folder that every process sees")

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> tuple[GateBatch, Float[Tensor, "rows pos d_model"]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        with safe_open(self._files[i], framework="pt", device=str(self.device)) as file:
            return self.batches[i], file.get_tensor("resid")


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


def _name(base: Model, layer: int) -> str:
    return f"{base.dtype} {layer} {weights_hash(base.hf.state_dict().items())}"


def _name_of(batch: GateBatch, below: str) -> str:
    read = hashlib.sha256(f"{below} {tuple(batch.forced.ids.shape)}".encode())
    for tensor in (batch.forced.ids, batch.forced.valid):
        read.update(tensor.cpu().numpy().tobytes())
    return read.hexdigest()[:24]

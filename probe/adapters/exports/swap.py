"""Swaps adapters on a model quickly: an empty LoRA is attached once, and its weights are exchanged."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from probe.adapters.exports.attach import Adapter, fill
from probe.adapters.mounting import linear_layers, lora_config, mounted
from probe.errors import ProbeError
from probe.models import Model

if TYPE_CHECKING:
    from peft import PeftModel

_NAME = "shell"


class Shell:
    """A LoRA on every linear layer of every block, made by :func:`shell`; while empty, it adds nothing."""

    def __init__(self, model: Model, wrapped: "PeftModel", layers: list[str]) -> None:
        self._model, self._wrapped, self._layers = model, wrapped, frozenset(layers)

    def swap(self, adapter: Adapter | str | Path | None) -> None:
        """Replace the current adapter.

        Args:
            adapter: of any rank, on all linear layers of the blocks or some; None leaves the shell empty.

        Raises:
            ProbeError: if the folder holds no plain LoRA, or it does not fit the model; the current adapter stays.
        """
        if adapter is None:
            fill(self._wrapped, _NAME, None, Adapter(""))
            return
        each = adapter if isinstance(adapter, Adapter) else Adapter(adapter)
        lora = each.read(self._model)
        if outside := [name for name in lora.parts if name not in self._layers]:
            raise ProbeError(f"{each.folder} adapts {outside[0]}, which is in no block: use attached(...), not a shell")
        fill(self._wrapped, _NAME, lora, each)


@contextmanager
def shell(model: Model, rank: int = 8) -> Iterator[Shell]:
    """Put an empty shell on a model for a block; afterwards the model is as before, bit for bit.

    Args:
        rank: rank of the shell; it changes with the adapter that is swapped in.

    Raises:
        ProbeError: if the rank is below 1, or the model has an adapter on already.
    """
    if rank < 1:
        raise ProbeError(f"rank is {rank}; a shell has at least 1")
    layers = linear_layers(model, range(model.n_layers))
    with mounted(model, lora_config(model, dict.fromkeys(layers, rank)), _NAME) as wrapped:  # its B is zero
        wrapped.requires_grad_(False).eval()
        yield Shell(model, wrapped, layers)

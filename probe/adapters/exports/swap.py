"""Swaps adapters on a model quickly: an empty LoRA is attached once, and its weights are exchanged."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from probe.adapters.exports.attach import Adapter, block_of, check_fits
from probe.adapters.quiet import quiet_peft
from probe.adapters.training.plan import detach, linear_layers, lora_config
from probe.models import Model, seeded

if TYPE_CHECKING:
    from peft import PeftModel

_NAME = "shell"


class Shell:
    """A LoRA on every linear layer of every block, made by :func:`shell`; while empty, it adds nothing."""

    def __init__(self, model: Model, wrapped: "PeftModel") -> None:
        self._model, self._wrapped = model, wrapped

    def swap(self, adapter: Adapter | str | Path | None) -> None:
        """Replace the current adapter.

        Args:
            adapter: of any rank, on all linear layers or some; None leaves the shell empty.

        Raises:
            ProbeError: if the folder holds no adapter, or it does not fit the model.
        """
        if adapter is None:
            self._empty()
            return
        from peft.utils.hotswap import hotswap_adapter

        each = adapter if isinstance(adapter, Adapter) else Adapter(adapter)
        check_fits(self._model, Path(each.folder))
        with quiet_peft():
            hotswap_adapter(self._wrapped, str(each.folder), _NAME, str(self._model.device))
        for path, module in self._wrapped.named_modules():
            scaling = getattr(module, "scaling", None)
            if isinstance(scaling, dict) and _NAME in scaling:
                scaling[_NAME] *= each.weight if not each.layers or block_of(path) in each.layers else 0.0

    @torch.no_grad()
    def _empty(self) -> None:
        for name, tensor in self._wrapped.named_parameters():
            if f".lora_B.{_NAME}." in name:
                tensor.zero_()


@contextmanager
def shell(model: Model, rank: int = 8) -> Iterator[Shell]:
    """Put an empty shell on a model for a block; afterwards the model is as before, bit for bit.

    Args:
        rank: rank of the shell; it grows when an adapter of a higher rank is swapped in.
    """
    from peft import PeftModel  # slow to import

    config = lora_config(model, linear_layers(model, range(model.n_layers)), rank=rank, alpha=rank)
    with quiet_peft(), seeded(0, model.device):
        wrapped = PeftModel(model.hf, config, adapter_name=_NAME)  # its B is zero
    try:
        wrapped.requires_grad_(False).eval()
        yield Shell(model, wrapped)
    finally:
        detach(model, wrapped)

"""Adapters that follow one another on a model without building anything anew: a shell of zeros, and what is put in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers.pytorch_utils import Conv1D

from probe.adapters.exports.attach import Adapter, block_of, check_fits
from probe.adapters.quiet import quiet_peft
from probe.adapters.training.plan import detach, linear_layers
from probe.models import Model

if TYPE_CHECKING:
    from peft import PeftModel

_NAME = "shell"


class Shell:
    """A LoRA on every linear layer of every block, made by :func:`shell`; empty, it adds nothing."""

    def __init__(self, model: Model, wrapped: "PeftModel") -> None:
        self._model, self._wrapped = model, wrapped

    def swap(self, adapter: Adapter | str | Path | None) -> None:
        """Put an adapter in the place of the one that is there; None leaves the model as it was.

        It may have any rank, and LoRAs on some layers only: the others are zero then.

        Raises:
            ProbeError: if there is no adapter, or it is not for this model.
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
    """Put an empty shell on a model for a block; afterwards the model is as it was, bit for bit.

    Args:
        rank: room that is made; an adapter of a higher one makes more.
    """
    from peft import LoraConfig, PeftModel  # slow to import

    names = linear_layers(model, range(model.n_layers))
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=names,
        fan_in_fan_out=isinstance(model.hf.get_submodule(names[0]), Conv1D),
        task_type="CAUSAL_LM",
    )
    with quiet_peft():
        wrapped = PeftModel(model.hf, config, adapter_name=_NAME)  # B begins at zero
    try:
        wrapped.requires_grad_(False).eval()
        yield Shell(model, wrapped)
    finally:
        detach(model, wrapped)

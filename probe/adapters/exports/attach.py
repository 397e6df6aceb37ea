"""Attaches adapters to a model for a block: one or several, weighted, at all blocks or at some."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from probe.adapters.exports.lora import LoRA, block_of, check_fits, read_lora
from probe.adapters.mounting import lora_config, mounted, quiet_peft
from probe.errors import ProbeError
from probe.models import Model, seeded, standing_in

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class Adapter:
    """An adapter to attach.

    Attributes:
        folder: its folder, as PEFT writes it.
        weight: its output is multiplied by this, as by llama.cpp's ``--lora-scaled``.
        layers: 0-based blocks at which it acts; empty takes all blocks that it has.
    """

    folder: str | Path
    weight: float = 1.0
    layers: tuple[int, ...] = ()

    def read(self, model: Model, *, foreign: bool = False) -> LoRA:
        """Read the adapter and check that it fits a model.

        Args:
            foreign: allow another model of the same shapes.

        Raises:
            ProbeError: if the folder holds no plain LoRA, it does not fit, or a weight or a block is not possible.
        """
        if not math.isfinite(self.weight):
            raise ProbeError(f"the weight of {self.folder} is {self.weight}; give a finite number")
        if wrong := [layer for layer in self.layers if not 0 <= layer < model.n_layers]:
            raise ProbeError(f"{self.folder} is to act at block {wrong[0]}; {model.name} has 0 to {model.n_layers - 1}")
        lora = read_lora(self.folder)
        check_fits(model, lora, foreign=foreign)
        return lora


@contextmanager
def attached(model: Model, *adapters: Adapter | str | Path, foreign: bool = False) -> Iterator[Model]:
    """Attach adapters to a model for a block; afterwards the model is as before, bit for bit.

    Everything is read and checked before the model is touched.

    Args:
        model: the model that they were trained on.
        adapters: one or several; their outputs are summed. An adapter of :func:`~probe.adapters.tune` knows the model
            that it was trained on; for other PEFT folders only names and shapes are compared.
        foreign: allow another model of the same shapes.

    Raises:
        ProbeError: if a folder holds no plain LoRA or a damaged one, the LoRA does not fit the model, or the model has
            an adapter on already.
    """
    wanted = [each if isinstance(each, Adapter) else Adapter(each) for each in adapters]
    if not wanted:
        raise ProbeError("there is no adapter to attach; name at least one folder")
    loras = [each.read(model, foreign=foreign) for each in wanted]
    names = [f"adapter_{i}" for i in range(len(wanted))]
    configs = [lora_config(model, {name: part.rank for name, part in lora.parts.items()}) for lora in loras]
    with mounted(model, configs[0], names[0]) as wrapped:
        # PEFT initialises weights, which are replaced.
        with quiet_peft(), seeded(0, *model.devices), standing_in(model.hf):
            for name, config in zip(names[1:], configs[1:], strict=True):
                wrapped.add_adapter(name, config)
        wrapped.base_model.set_adapter(names)  # pyright: ignore[reportCallIssue]
        for name, lora, each in zip(names, loras, wanted, strict=True):
            fill(wrapped, name, lora, each)
        wrapped.requires_grad_(False).eval()
        yield model


@torch.no_grad()
def fill(wrapped: "PeftModel", name: str, lora: LoRA | None, adapter: Adapter) -> None:
    """Give an adapter in PEFT the weights of a LoRA; its layers that the LoRA lacks then add nothing.

    Args:
        wrapped: the model with the adapter, whose layers may have another rank.
        name: the adapter's name in PEFT.
        lora: the weights; None for none.
        adapter: the weight, and the blocks at which it acts.
    """
    from peft.tuners.lora import LoraLayer

    for path, module in wrapped.get_base_model().named_modules():
        if not isinstance(module, LoraLayer) or name not in module.lora_A:
            continue
        a, b = (side.get_submodule(name).get_parameter("weight") for side in (module.lora_A, module.lora_B))
        part = None if lora is None else lora.parts.get(path)
        if part is None:
            b.zero_()
            continue
        a.data, b.data = part.a.to(a.device, a.dtype), part.b.to(b.device, b.dtype)
        there = not adapter.layers or block_of(path) in adapter.layers
        module.scaling[name] = part.scale * adapter.weight if there else 0.0


@contextmanager
def switched_off(model: Model) -> Iterator[None]:
    """Switch attached adapters off for a block; the model then computes exactly what it does without them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    tuners = [module for module in model.hf.modules() if isinstance(module, BaseTunerLayer)]
    layers = [layer for layer in tuners if not layer.disable_adapters]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
            layer.requires_grad_(False)

"""Which layers get a LoRA, and the proof that each of its tensors can learn."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from probe.adapters.quiet import quiet_peft
from probe.adapters.training.objective import Objective
from probe.adapters.training.packing import Packed
from probe.config import check_above_zero, check_least
from probe.errors import ProbeError
from probe.models import Model

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class AdapterPlan:
    """A LoRA on all linear layers of some blocks.

    Raises:
        ProbeError: if a setting makes no sense.
    """

    layers: tuple[int, ...] = ()
    """0-based blocks; without any, all that the objective can reach."""
    rank: int = 8
    alpha: float = 16.0
    """What it adds is scaled by alpha / rank."""
    dropout: float = 0.0
    modules: tuple[str, ...] = ()
    """Names of linear layers, as ``q_proj``; without any, all of a block."""

    def __post_init__(self) -> None:
        check_least("plan", self, rank=1)
        check_above_zero("plan", self, "alpha")


def reachable(model: Model, objective: Objective) -> tuple[int, ...]:
    """The blocks that an objective is about: those above a site where its gradient stops, those up to one it reads."""
    every = tuple(range(model.n_layers))
    site = objective.site
    if site is None or site.layer is None:
        return every
    if objective.name in ("feature-match", "steer-distil"):
        return every[: site.layer + (site.kind != "resid_pre")]
    if objective.inserts is not None and not objective.through:
        return every[site.layer + 1 :]
    return every


@contextmanager
def adapted(model: Model, plan: AdapterPlan, objective: Objective, *, seed: int) -> Iterator["PeftModel"]:
    """A fresh LoRA on a model; afterwards the model is as it was, bit for bit.

    Raises:
        ProbeError: if there is no such block or linear layer.
    """
    from peft import LoraConfig, get_peft_model  # slow to import

    layers = plan.layers or reachable(model, objective)
    if wrong := [layer for layer in layers if not 0 <= layer < model.n_layers]:
        raise ProbeError(f"plan.layers has {wrong[0]}; {model.name} has blocks 0 to {model.n_layers - 1}")
    names = linear_layers(model, layers, plan.modules)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=plan.rank,
        lora_alpha=plan.alpha,  # pyright: ignore[reportArgumentType]  # PEFT takes any number
        lora_dropout=plan.dropout,
        target_modules=names,
        fan_in_fan_out=isinstance(model.hf.get_submodule(names[0]), Conv1D),
        task_type="CAUSAL_LM",
    )
    with quiet_peft():
        wrapped = get_peft_model(model.hf, config)
    try:
        yield wrapped
    finally:
        detach(model, wrapped)


def detach(model: Model, wrapped: "PeftModel") -> None:
    """Take every adapter off."""
    wrapped.unload()
    if hasattr(model.hf, "peft_config"):
        del model.hf.peft_config
    model.hf.eval().requires_grad_(False)


def linear_layers(model: Model, layers: Sequence[int], modules: Sequence[str] = ()) -> list[str]:
    """Full names of the linear layers of some blocks.

    Raises:
        ProbeError: if a block has no linear layer of a name.
    """
    paths = {id(module): name for name, module in model.hf.named_modules()}
    found, known = [], set()
    for layer in layers:
        block = model.layers[layer]
        for name, module in block.named_modules():
            if isinstance(module, nn.Linear | Conv1D):
                leaf = name.rpartition(".")[-1]
                known.add(leaf)
                if not modules or leaf in modules:
                    found.append(paths[id(module)])
    if unknown := [name for name in modules if name not in known]:
        raise ProbeError(f"plan.modules has {unknown[0]!r}; a block of {model.name} has {', '.join(sorted(known))}")
    return found


def prove_alive(model: Model, wrapped: "PeftModel", objective: Objective, batch: Packed) -> None:
    """One backward pass, by which every tensor that is trained must get a gradient.

    Raises:
        ProbeError: naming the blocks whose tensors get none.
    """
    objective.losses(model, wrapped.disable_adapter, batch).sum().backward()
    dead = [name for name, tensor in trained(wrapped).items() if tensor.grad is None]
    wrapped.zero_grad(set_to_none=True)
    if dead:
        blocks = sorted({int(part) for name in dead for part in name.split(".") if part.isdigit()})
        alive = reachable(model, objective)
        raise ProbeError(
            f"no gradient of {objective.name} reaches the LoRA at blocks {', '.join(map(str, blocks))} "
            f"({len(dead)} tensors): leave plan.layers out, or give blocks {alive[0]} to {alive[-1]}"
        )


def trained(wrapped: "PeftModel") -> dict[str, Any]:
    """The tensors of a LoRA by name."""
    return {name: tensor for name, tensor in wrapped.named_parameters() if tensor.requires_grad}

"""Which linear layers get a LoRA, attaching and detaching it, and a check that each of its tensors learns."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from probe.adapters.quiet import quiet_peft
from probe.adapters.training.config import ON_LATENTS, AdapterPlan
from probe.adapters.training.objective import Objective
from probe.adapters.training.packing import Packed
from probe.errors import ProbeError
from probe.models import Model, seeded

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel


def reachable(model: Model, objective: Objective) -> tuple[int, ...]:
    """The blocks that the gradient of an objective reaches.

    These are the blocks above a site at which the gradient stops, the blocks up to a site whose state is the target,
    and otherwise all blocks.
    """
    every = tuple(range(model.n_layers))
    site = objective.site
    if site is None or site.layer is None:
        return every
    if objective.name in ON_LATENTS:
        return every[: site.layer + (site.kind != "resid_pre")]
    if objective.inserts is not None and not objective.through:
        return every[site.layer + 1 :]
    return every


def lora_config(model: Model, names: Sequence[str], *, rank: int, alpha: float, dropout: float = 0.0) -> "LoraConfig":
    """PEFT's settings for a LoRA on some linear layers.

    Args:
        names: full names of the layers, from :func:`linear_layers`.
        rank: of each LoRA.
        alpha: the output is multiplied by alpha / rank.
        dropout: on the input during training.
    """
    from peft import LoraConfig  # slow to import

    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]  # PEFT takes any number
        lora_dropout=dropout,
        target_modules=list(names),
        fan_in_fan_out=isinstance(model.hf.get_submodule(names[0]), Conv1D),
        task_type="CAUSAL_LM",
    )


@contextmanager
def adapted(model: Model, plan: AdapterPlan, objective: Objective, *, seed: int) -> Iterator["PeftModel"]:
    """Put an untrained LoRA on a model for a block; afterwards the model is as before, bit for bit.

    Args:
        objective: decides the blocks where the plan names none.
        seed: seeds the LoRA's first weights.

    Raises:
        ProbeError: if the model has no such block or linear layer.
    """
    from peft import get_peft_model  # slow to import

    layers = plan.layers or reachable(model, objective)
    if wrong := [layer for layer in layers if not 0 <= layer < model.n_layers]:
        raise ProbeError(f"plan.layers has {wrong[0]}; {model.name} has blocks 0 to {model.n_layers - 1}")
    names = linear_layers(model, layers, plan.modules)
    config = lora_config(model, names, rank=plan.rank, alpha=plan.alpha, dropout=plan.dropout)
    with quiet_peft(), seeded(seed, model.device):
        wrapped = get_peft_model(model.hf, config)
    try:
        yield wrapped
    finally:
        detach(model, wrapped)


def detach(model: Model, wrapped: "PeftModel") -> None:
    """Remove every adapter from a model and freeze it."""
    wrapped.unload()
    if hasattr(model.hf, "peft_config"):
        del model.hf.peft_config
    model.hf.eval().requires_grad_(False)


def linear_layers(model: Model, layers: Sequence[int], modules: Sequence[str] = ()) -> list[str]:
    """Full names of the linear layers in some blocks.

    Args:
        layers: 0-based blocks.
        modules: last parts of the names to keep, such as ``q_proj``; empty keeps all.

    Raises:
        ProbeError: if a block has no linear layer of such a name.
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
    """Check with one backward pass that every trainable tensor gets a gradient.

    Raises:
        ProbeError: naming the blocks whose tensors get none.
    """
    with seeded(0, model.device):
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
    """The trainable tensors of a LoRA by name."""
    return {name: tensor for name, tensor in wrapped.named_parameters() if tensor.requires_grad}

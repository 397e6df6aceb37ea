"""Which linear layers get a LoRA, and a check that each of its tensors learns."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from probe.adapters.mounting import linear_layers, lora_config, mounted
from probe.adapters.training.config import ON_LATENTS, AdapterPlan
from probe.adapters.training.objective import Objective
from probe.errors import ProbeError
from probe.models import Model

if TYPE_CHECKING:
    from peft import PeftModel


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


@contextmanager
def adapted(model: Model, plan: AdapterPlan, objective: Objective, *, seed: int) -> Iterator["PeftModel"]:
    """Put an untrained LoRA on a model for a block; afterwards the model is as before, bit for bit.

    Args:
        objective: decides the blocks where the plan names none.
        seed: seeds the LoRA's first weights.

    Raises:
        ProbeError: if the model has no such block or linear layer, or an adapter on already.
    """
    layers = plan.layers or reachable(model, objective)
    if wrong := [layer for layer in layers if not 0 <= layer < model.n_layers]:
        raise ProbeError(f"plan.layers has {wrong[0]}; {model.name} has blocks 0 to {model.n_layers - 1}")
    if not layers:
        raise ProbeError(f"no gradient of {objective.name} reaches a block of {model.name}: take a lower site")
    names = linear_layers(model, layers, plan.modules)
    config = lora_config(model, dict.fromkeys(names, plan.rank), alpha=plan.alpha, dropout=plan.dropout)
    with mounted(model, config, seed=seed) as wrapped:
        yield wrapped


def prove_alive(model: Model, wrapped: "PeftModel", objective: Objective, backward: Callable[[], Any]) -> None:
    """Check with one backward pass that every trainable tensor gets a gradient.

    Args:
        backward: runs the backward pass of some texts.

    Raises:
        ProbeError: naming the blocks whose tensors get none.
    """
    backward()
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

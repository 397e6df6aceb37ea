"""Learning a mechanism: cross-entropy on the wanted token at the gates, through the layers above the site.

After Venhoff et al. (2510.07364v4), with three mends: training and decoding steer the same way (at the output
of one block, through the same code), the gate compares most likely tokens in both, and one best epoch,
chosen on validation traces, holds for vectors and strengths alike.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from probe.errors import ProbeError
from probe.models import Model, place, seeded
from probe.steering.balance import gate_weights
from probe.steering.config import SteeringConfig
from probe.steering.gates import GateBatch
from probe.steering.mechanism import Mechanism
from probe.steering.objective import GateLoss
from probe.steering.prefix import Prefix, cache_folder, resid_below, share
from probe.steering.vectors import BehaviourVectors

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Learned:
    """A mechanism and how its training went."""

    vectors: Mechanism
    history: list[dict[str, float]]
    """Per epoch: mean cross-entropy and accuracy at the gates of the validation traces; epoch 0 is before training."""


def steering_layer(model: Model, layer: int | None) -> int:
    """The steering layer: the one given, or the block at 37 % of the depth.

    Raises:
        ProbeError: if the model has no block above it to steer, or is of an architecture whose blocks are not known.
    """
    last = model.n_layers - 2
    found = min(last, max(0, math.ceil(0.37 * model.n_layers) - 1)) if layer is None else layer
    if not 0 <= found <= last:
        raise ProbeError(f"steering.layer is {found}; {model.name} can be steered at 0 to {last}, below its last block")
    place(model.hf, f"resid_post.{found}")
    return found


def learn_vectors(
    base: Model,
    train: Sequence[GateBatch],
    validation: Sequence[GateBatch],
    *,
    n_behaviours: int,
    layer: int,
    config: SteeringConfig,
    seed: int,
    folder: str | Path | None = None,
    accelerator: "Accelerator | None" = None,
    progress: bool = False,
) -> Learned:
    """Learn one vector a behaviour and the strength network together.

    Args:
        train, validation: from :func:`~probe.steering.gates.collect_gates`.
        n_behaviours: 1 learns the single-vector arm, which ignores the behaviours.
        layer: the steering layer.
        cache: folder for the residual streams at the site, as large as the texts' hidden states of one layer; they are
            found there again by the next training on the same batches. None takes a temporary one. Processes on several
            machines must be given one that all of them see.
        accelerator: shares the batches of each step among its processes. Each must be given the same, with the base
            model on its device, and all get the same vectors, which are those that one process would get.

    Raises:
        ProbeError: if a step has fewer batches than there are processes.
    """
    unit = typical_coordinate(base, train[:4], layer)
    with seeded(seed):
        vectors = BehaviourVectors(
            n_behaviours, base.d_model, layer, hidden=config.hidden, unit=unit, persistent=config.persistent
        )
        vectors.directions.data.normal_(std=0.01)
    return learn_mechanism(
        base,
        vectors,
        train,
        validation,
        config=config,
        seed=seed,
        folder=folder,
        accelerator=accelerator,
        progress=progress,
    )


def learn_mechanism(
    base: Model,
    mechanism: Mechanism,
    train: Sequence[GateBatch],
    validation: Sequence[GateBatch],
    *,
    config: SteeringConfig,
    seed: int,
    folder: str | Path | None = None,
    accelerator: "Accelerator | None" = None,
    progress: bool = False,
) -> Learned:
    """Learn any mechanism, from where it stands.

    Args:
        mechanism: moved to the base model's device and trained in place; ``directions`` with ``lr_vectors``, everything
            else with ``lr_strength``.
        others: as of :func:`learn_vectors`.

    Raises:
        ProbeError: if a step has fewer batches than there are processes.
    """
    mechanism = mechanism.to(base.device).train().requires_grad_(True)
    rank, processes = share(accelerator)
    per_step = config.batches_per_step
    if per_step < processes:
        raise ProbeError(
            f"steering.batches_per_step is {per_step}; give each of the {processes} processes at least one"
        )
    rest = [parameter for name, parameter in mechanism.named_parameters() if name != "directions"]
    groups = [(config.lr_vectors, [mechanism.directions]), (config.lr_strength, rest)]
    groups = [(lr, parameters) for lr, parameters in groups if parameters]
    optimizer = torch.optim.AdamW([{"params": parameters, "lr": lr} for lr, parameters in groups], weight_decay=0.0)
    steps = config.epochs * math.ceil(len(train) / per_step)
    schedule = one_cycle(optimizer, [lr for lr, _ in groups], steps)
    for parameter in mechanism.parameters():
        parameter.grad = torch.zeros_like(parameter)  # a process without a gate has something to add all the same
    generator = torch.Generator().manual_seed(seed)
    gate_loss = GateLoss(base, mechanism)
    bar = tqdm(total=steps, desc=f"vectors, seed {seed}", unit="step", disable=not progress or rank > 0)
    with cache_folder(folder, accelerator) as kept:
        train_states, validation_states = (
            Prefix(base, batches, mechanism.layer, kept, accelerator=accelerator) for batches in (train, validation)
        )
        history = [_evaluate(gate_loss, validation_states, accelerator)]
        best = _state(mechanism)
        for _ in range(config.epochs):
            order = torch.randperm(len(train), generator=generator).tolist()
            for step in (order[start : start + per_step] for start in range(0, len(order), per_step)):
                weights = gate_weights([train[i] for i in step], mechanism.n_behaviours, config, generator)
                optimizer.zero_grad(set_to_none=False)
                for i, weight in list(zip(step, weights, strict=True))[rank::processes]:
                    losses = gate_loss(*train_states[i]).losses
                    if len(losses):
                        (losses * weight).sum().backward()
                for parameter in mechanism.parameters():
                    assert parameter.grad is not None
                    parameter.grad = _sum(parameter.grad, accelerator)
                torch.nn.utils.clip_grad_norm_(mechanism.parameters(), 1.0)
                optimizer.step()  # where there is no gate there is no gradient, and nothing moves
                schedule.step()
                bar.update()
            history.append(_evaluate(gate_loss, validation_states, accelerator))
            losses = [epoch["loss"] for epoch in history]
            if losses[-1] <= min(losses):
                best = _state(mechanism)
            elif len(losses) - 1 - losses.index(min(losses)) >= config.patience:
                break
        bar.close()
        mechanism.load_state_dict(best)
        if isinstance(mechanism, BehaviourVectors):
            mechanism.fold(_mean_strengths(mechanism, train_states, accelerator))
    return Learned(mechanism.eval().requires_grad_(False), history)


def one_cycle(optimizer: torch.optim.Optimizer, lr: Sequence[float], steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """A tenth of the steps up to ``lr`` of each group of parameters, the others down.

    Fewer than eleven steps are the beginning of eleven: the way up of ten would have no length, by which torch divides.
    """
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, list(lr), total_steps=max(steps, 11), pct_start=0.1)


def typical_coordinate(base: Model, batches: Sequence[GateBatch], layer: int) -> float:
    """The median size of a coordinate of the residual stream at a site: the unit that vectors are learned in."""
    states = [resid_below(base, batch, layer)[batch.forced.valid] for batch in batches]
    return torch.cat(states).float().square().median().sqrt().item()


def _state(mechanism: Mechanism) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in mechanism.state_dict().items()}


@torch.no_grad()
def _evaluate(gate_loss: GateLoss, batches: Prefix, accelerator: "Accelerator | None") -> dict[str, float]:
    sums = torch.zeros(3, device=batches.device)
    for batch, hidden in _mine(batches, accelerator):
        scored = gate_loss(batch, hidden)
        sums += torch.stack([scored.losses.sum(), scored.right.sum(), batch.gate.sum()])
    loss, right, n = _sum(sums, accelerator).tolist()
    return {"loss": loss / max(n, 1), "accuracy": right / max(n, 1), "gates": int(n)}


@torch.no_grad()
def _mean_strengths(
    mechanism: Mechanism, batches: Prefix, accelerator: "Accelerator | None"
) -> Float[Tensor, " behaviours"]:
    """Per behaviour, at its own gates; one where it has none."""
    n = mechanism.n_behaviours
    sums = torch.zeros(2, n, device=batches.device)
    for batch, hidden in _mine(batches, accelerator):
        behaviour = batch.behaviours(n)
        strength = mechanism.strength(hidden[batch.places], behaviour)
        sums.index_add_(1, behaviour, torch.stack([strength, torch.ones_like(strength)]))
    total, counts = _sum(sums, accelerator)
    return torch.where(counts > 0, total / counts.clamp(min=1), 1.0)


def _mine(batches: Prefix, accelerator: "Accelerator | None") -> Iterator[tuple[GateBatch, Tensor]]:
    rank, processes = share(accelerator)
    return (batches[i] for i in range(rank, len(batches), processes))


def _sum(tensor: Tensor, accelerator: "Accelerator | None") -> Tensor:
    """Over all processes."""
    reduced: Any = tensor if accelerator is None else accelerator.reduce(tensor, "sum")
    return reduced

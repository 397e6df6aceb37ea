"""Learning the vectors: cross-entropy on the thinking model's token where the two models disagree.

After Venhoff et al. (2510.07364v4), with three mends: training and decoding steer the same way (at the output
of one block, through the same code), the gate compares most likely tokens in both, and one best epoch,
chosen on validation traces, holds for vectors and strengths alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from probe._config import check_above_zero, check_least, check_seeds
from probe._errors import ProbeError
from probe.models import Model, place
from probe.steering.gates import GateBatch
from probe.steering.objective import Objective, typical_coordinate
from probe.steering.vectors import BehaviourVectors


@dataclass(frozen=True)
class SteeringConfig:
    """How mechanism and policy are learned.

    Raises:
        ProbeError: if a setting makes no sense.
    """

    layer: int | None = None
    """Steering layer of the base model, 0-based; None takes the block at 37 % of the depth (2510.07364)."""
    epochs: int = 3
    lr_vectors: float = 0.15
    """Step of the vectors, in units of a typical residual coordinate."""
    lr_strength: float = 5e-3
    hidden: int = 32
    """Width of the strength network."""
    persistent: bool = False
    """Whether later tokens see the shifted states (in the layers above, through their keys and values), or only the
    logits at a gate do. Training and decoding always do the same."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the vectors; each is trained and shown."""

    def __post_init__(self) -> None:
        check_seeds("steering.seeds", self.seeds)
        check_least("steering", self, layer=0, epochs=1, hidden=1)
        check_above_zero("steering", self, "lr_vectors", "lr_strength")


@dataclass(frozen=True)
class Learned:
    """Vectors and how their training went."""

    vectors: BehaviourVectors
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
    n_behaviours: int,
    layer: int,
    config: SteeringConfig,
    *,
    seed: int,
    progress: bool = False,
) -> Learned:
    """Learn one vector a behaviour and the strength network together.

    Args:
        train, validation: from :func:`~probe.steering.gates.collect_gates`.
        n_behaviours: 1 learns the single-vector arm, which ignores the behaviours.
        layer: the steering layer.
    """
    torch.manual_seed(seed)
    unit = typical_coordinate(base, train[:4], layer)
    vectors = BehaviourVectors(
        n_behaviours, base.d_model, layer, hidden=config.hidden, unit=unit, persistent=config.persistent
    ).to(base.device)
    objective = Objective(base, vectors)
    vectors.directions.data.normal_(std=0.01)
    optimizer = torch.optim.AdamW(
        [
            {"params": [vectors.directions], "lr": config.lr_vectors},
            {
                "params": [*vectors.strength_in.parameters(), *vectors.strength_out.parameters()],
                "lr": config.lr_strength,
            },
        ],
        weight_decay=0.0,
    )
    steps = config.epochs * len(train)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [config.lr_vectors, config.lr_strength], total_steps=max(steps, 2), pct_start=0.1
    )
    history = [_evaluate(objective, validation)]
    best = {name: tensor.clone() for name, tensor in vectors.state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    bar = tqdm(total=steps, desc=f"vectors, seed {seed}", unit="batch", disable=not progress)
    for _ in range(config.epochs):
        for i in torch.randperm(len(train), generator=generator).tolist():
            loss, _, n = objective(train[i])
            optimizer.zero_grad()
            if n:
                (loss / n).backward()
                torch.nn.utils.clip_grad_norm_(vectors.parameters(), 1.0)
            optimizer.step()  # where there is no gate there is no gradient, and nothing moves
            schedule.step()
            bar.update()
        history.append(_evaluate(objective, validation))
        if history[-1]["loss"] <= min(epoch["loss"] for epoch in history):
            best = {name: tensor.clone() for name, tensor in vectors.state_dict().items()}
    bar.close()
    vectors.load_state_dict(best)
    return Learned(vectors.eval().requires_grad_(False), history)


@torch.no_grad()
def _evaluate(objective: Objective, batches: Sequence[GateBatch]) -> dict[str, float]:
    loss, right, n = 0.0, 0, 0
    for batch in batches:
        summed, hits, gates = objective(batch)
        loss, right, n = loss + summed.item(), right + hits, n + gates
    return {"loss": loss / max(n, 1), "accuracy": right / max(n, 1), "gates": n}

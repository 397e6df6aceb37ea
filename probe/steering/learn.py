"""Learning the vectors: cross-entropy on the thinking model's token where the two models disagree.

After Venhoff et al. (2510.07364v4), with three mends: training and decoding steer the same way (persistent shifts at
the output of one block, through the same code), the gate compares most likely tokens in both, and one best epoch,
chosen on validation traces, holds for vectors and strengths alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from probe.hooks import UpperLayers, capture, causal_masks
from probe.models import Model
from probe.steering.gates import GateBatch
from probe.steering.vectors import BehaviourVectors


@dataclass(frozen=True)
class SteeringConfig:
    """How mechanism and policy are learned."""

    layer: int | None = None
    """Steering layer of the base model, 0-based; None takes the block at 37 % of the depth (2510.07364)."""
    epochs: int = 4
    lr_vectors: float = 0.15
    """Step of the vectors, in units of a typical residual coordinate."""
    lr_strength: float = 5e-3
    hidden: int = 32
    """Width of the strength network."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the vectors; each is trained and shown."""


@dataclass(frozen=True)
class Learned:
    """Vectors and how their training went."""

    vectors: BehaviourVectors
    history: list[dict[str, float]]
    """Per epoch: mean cross-entropy and accuracy at the gates of the validation traces; epoch 0 is before training."""


def steering_layer(model: Model, layer: int | None) -> int:
    """The steering layer: the one given, or the block at 37 % of the depth."""
    return max(0, math.ceil(0.37 * model.n_layers) - 1) if layer is None else layer


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
    upper = UpperLayers(base, layer)
    hidden = [_hidden(base, batch, layer) for batch in train[: min(4, len(train))]]
    unit = torch.cat([h[b.forced.valid] for h, b in zip(hidden, train, strict=False)]).pow(2).median().sqrt().item()
    vectors = BehaviourVectors(n_behaviours, base.d_model, layer, hidden=config.hidden, unit=unit).to(base.device)
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
    history = [_evaluate(base, upper, vectors, validation, layer)]
    best = {name: tensor.clone() for name, tensor in vectors.state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    bar = tqdm(total=steps, desc=f"vectors, seed {seed}", unit="batch", disable=not progress)
    for _ in range(config.epochs):
        for i in torch.randperm(len(train), generator=generator).tolist():
            loss, _, n = _loss(base, upper, vectors, train[i], layer)
            if n:
                optimizer.zero_grad()
                (loss / n).backward()
                torch.nn.utils.clip_grad_norm_(vectors.parameters(), 1.0)
                optimizer.step()
            schedule.step()
            bar.update()
        history.append(_evaluate(base, upper, vectors, validation, layer))
        if history[-1]["loss"] <= min(epoch["loss"] for epoch in history):
            best = {name: tensor.clone() for name, tensor in vectors.state_dict().items()}
    bar.close()
    vectors.load_state_dict(best)
    return Learned(vectors.eval().requires_grad_(False), history)


@torch.no_grad()
def _hidden(base: Model, batch: GateBatch, layer: int) -> Tensor:
    """The residual stream at the steering site; it does not depend on the vectors, and nothing above it is run."""
    site = f"resid_post.{layer}"
    with capture(base, site) as acts:
        base.hf(
            input_ids=batch.forced.ids,
            attention_mask=causal_masks(base, batch.forced.valid, batch.forced.ids.shape[1]),
            position_ids=batch.forced.positions,
            use_cache=False,
        )
    return acts[site]


def _loss(
    base: Model, upper: UpperLayers, vectors: BehaviourVectors, batch: GateBatch, layer: int
) -> tuple[Tensor, int, int]:
    """Summed cross-entropy at the gates of a batch, how many are right, and how many there are."""
    rows, emitted = batch.gate.nonzero(as_tuple=True)
    at = batch.forced.predicts[rows, emitted]
    target = batch.target[rows, emitted]
    hidden = _hidden(base, batch, layer)
    behaviour = batch.behaviour[rows, emitted].clamp(max=vectors.n_behaviours - 1)
    resid = hidden[rows, at].to(vectors.directions.dtype)
    shift = vectors.shift(vectors.strength(resid, behaviour), behaviour)
    steered = hidden.index_put((rows, at), shift.to(hidden.dtype), accumulate=True)
    logits = upper(
        steered,
        attention_mask=causal_masks(base, batch.forced.valid, hidden.shape[1]),
        position_ids=batch.forced.positions,
    )[rows, at].float()
    return F.cross_entropy(logits, target, reduction="sum"), int((logits.argmax(-1) == target).sum()), len(target)


@torch.no_grad()
def _evaluate(
    base: Model, upper: UpperLayers, vectors: BehaviourVectors, batches: Sequence[GateBatch], layer: int
) -> dict[str, float]:
    loss, right, n = 0.0, 0, 0
    for batch in batches:
        summed, hits, gates = _loss(base, upper, vectors, batch, layer)
        loss, right, n = loss + summed.item(), right + hits, n + gates
    return {"loss": loss / max(n, 1), "accuracy": right / max(n, 1), "gates": n}

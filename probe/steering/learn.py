"""Learning a mechanism by cross-entropy on the target token at the gates, through the layers above the site.

The method is that of Venhoff et al. (2510.07364v4) with three corrections: training and decoding steer in the same way
(at the output of one block, through the same code), the gate compares most likely tokens in both, and vectors and
strengths are of the same step, which is chosen on validation traces.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.convergence import Schedule
from probe.errors import ProbeError
from probe.hooks import check_finite
from probe.models import Model, halving, place, seeded
from probe.progress import progress_bar
from probe.steering.balance import gate_weights
from probe.steering.config import SteeringConfig
from probe.steering.gates import GateBatch
from probe.steering.mechanism import Mechanism
from probe.steering.objective import GateLoss
from probe.steering.parts import check_targets
from probe.steering.prefix import Prefix, cache_folder, resid_below, share
from probe.steering.vectors import BehaviourVectors

if TYPE_CHECKING:
    from accelerate import Accelerator


_TOKENS = 4096
"""The maximum number of tokens of a batch on which the size of a coordinate is measured; the median needs no more."""


@dataclass(frozen=True)
class Learned:
    """A learned mechanism and the history of its training.

    Attributes:
        vectors: the mechanism of the best evaluation, frozen.
        history: for each evaluation its ``step``, the ``loss`` (mean cross-entropy), the ``accuracy`` and the number
            of ``gates`` on the validation traces, and ``train``, the mean loss of the steps before it. The first entry
            is from before training.
        converged: whether the validation loss stopped falling before the maximum number of steps.
    """

    vectors: Mechanism
    history: list[dict[str, float]]
    converged: bool

    def __repr__(self) -> str:
        first, best = self.history[0]["loss"], min(self.history, key=lambda each: each["loss"])
        end = "" if self.converged else ", not converged"
        return (
            f"Learned({self.vectors!r}, validation loss {first:.3f} → {best['loss']:.3f} at step {best['step']}{end})"
        )


def steering_layer(model: Model, layer: int | None) -> int:
    """Check a steering layer, or choose the block at 37 % of the depth.

    Args:
        model: the base model.
        layer: a 0-based layer, or None to choose.

    Raises:
        ProbeError: if there is no such layer or no block above it, or the architecture is unknown.
    """
    last = model.n_layers - 2
    found = min(last, max(0, math.ceil(0.37 * model.n_layers) - 1)) if layer is None else layer
    if not 0 <= found <= last:
        raise ProbeError(f"steering.layer is {found}; {model.name} can be steered at layers 0 to {last}")
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
    """Learn one vector for each behaviour together with the strength network.

    Args:
        base: the base model, which stays frozen.
        train, validation: from :func:`~probe.steering.collect_gates`.
        n_behaviours: K of the taxonomy; 1 learns a single vector for all behaviours.
        layer: the 0-based steering layer.
        seed: seeds the initial values and the order of batches.
        folder: keeps the residual streams below the steering layer, so that the next training on the same batches
            reuses them; they take as much space as the hidden states of one layer, and at most half of what is free.
            None uses a temporary folder.
        accelerator: distributes the batches of each step over its processes. Every process makes the same call with
            the base model on its own device, and all get the vectors that a single process would get.
        progress: show a bar.

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
    """Train any mechanism from its current state.

    A batch is scored in parts that fit into ``base.budget``, which change the gradient by rounding only.

    Args:
        base: the base model, which stays frozen.
        mechanism: moved to the base model's device and trained in place. ``directions`` are trained with
            ``lr_vectors``, all other parameters with ``lr_strength``.
        train, validation, config, folder, accelerator, progress: see :func:`learn_vectors`.
        seed: seeds the order of batches.

    Raises:
        ProbeError: if a step has fewer batches than there are processes, the mechanism does not fit the base model, or
            a loss or gradient is not finite.
    """
    base.check_gradient("learning vectors")
    _check(base, mechanism, train, validation)
    mechanism = mechanism.to(base.device).train().requires_grad_(True)
    rank, processes = share(accelerator)
    per_step = config.batches_per_step
    if per_step < processes:
        raise ProbeError(
            f"steering.batches_per_step is {per_step}, fewer than the {processes} processes; set it to {processes}"
        )
    rest = [parameter for name, parameter in mechanism.named_parameters() if name != "directions"]
    groups = [(config.lr_vectors, [mechanism.directions]), (config.lr_strength, rest)]
    groups = [{"params": parameters, "lr": lr, "highest": lr} for lr, parameters in groups if parameters]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    for parameter in mechanism.parameters():
        parameter.grad = torch.zeros_like(parameter)  # a process without a gate still has a gradient to sum
    schedule = Schedule(config.steps, config.check_every, config.patience)
    generator = torch.Generator().manual_seed(seed)
    gate_loss = _Fitted(base, mechanism)
    history: list[dict[str, float]] = []
    recent: list[Tensor] = []
    best = _state(mechanism)
    with cache_folder(folder, accelerator) as kept:
        train_states, validation_states = (
            Prefix(base, batches, mechanism.layer, kept) for batches in (train, validation)
        )
        steps = _in_epochs(len(train), per_step, generator)
        bar = progress_bar(desc=f"vectors, seed {seed}", unit="step", show=progress and rank == 0)
        for done in itertools.count():
            if schedule.due(done):
                check = {"step": done, **_evaluate(gate_loss, validation_states, accelerator)}
                if recent:
                    check["train"] = _sum(torch.stack(recent).sum(), accelerator).item() / len(recent)
                history.append(check)
                recent = []
                schedule.update(done, check["loss"])
                bar.set_postfix(loss=f"{check['loss']:.3f}")
                if check["loss"] <= min(each["loss"] for each in history):
                    best = _state(mechanism)
            if schedule.ended(done):
                break
            step = next(steps)
            weights = gate_weights([train[i] for i in step], mechanism.n_behaviours, config, generator)
            mine = list(zip(step, weights, strict=True))[rank::processes]
            recent.append(gate_loss.backward(train_states, mine, done))
            for parameter in mechanism.parameters():
                assert parameter.grad is not None
                parameter.grad = _sum(parameter.grad, accelerator)
            norm = torch.nn.utils.clip_grad_norm_(mechanism.parameters(), 1.0)
            check_finite(norm, f"the gradient of the mechanism at step {done}")
            for group in optimizer.param_groups:
                group["lr"] = group["highest"] * schedule.rate(done)
            optimizer.step()  # without gates the gradient is zero and nothing moves
            bar.update()
        bar.close()
        mechanism.load_state_dict(best)
        if isinstance(mechanism, BehaviourVectors):
            mechanism.fold(_mean_strengths(mechanism, train_states, accelerator))
    # Without a gate to validate on, nothing is known of the training.
    seen = history[-1]["gates"] > 0 or not any(bool(batch.gate.any()) for batch in train)
    return Learned(mechanism.eval().requires_grad_(False), history, schedule.converged and seen)


class _Fitted:
    """Scores gates in parts that fit into the base model's budget, and in halves of them once memory runs out."""

    def __init__(self, base: Model, mechanism: Mechanism) -> None:
        self.mechanism, self.device, self.budget = mechanism, base.device, base.budget * 3 // 4
        self.gate_loss = GateLoss(base, mechanism, keep=base.budget // 4)

    def backward(self, batches: Prefix, mine: Sequence[tuple[int, Tensor]], step: int) -> Float[Tensor, ""]:
        """Set the gradient of a step, and return its loss.

        Args:
            batches: all batches.
            mine: the numbers of those of this step, each with the weights of its gates.
            step: the number of the step, for messages.
        """

        def work(budget: int) -> Tensor:
            total = torch.zeros((), device=self.device)
            for parameter in self.mechanism.parameters():
                assert parameter.grad is not None
                parameter.grad.zero_()
            for i, weight in mine:
                for gates, scored in self.gate_loss.parts(*batches[i], budget):
                    loss = (scored.losses * weight[gates]).sum()
                    loss.backward()
                    total += loss.detach()
            return total

        return self._fitted(work, [batches.batches[i] for i, _ in mine], f"learning vectors at step {step}")

    def sums(self, batch: GateBatch, hidden: Float[Tensor, "rows pos d_model"]) -> Float[Tensor, " three"]:
        """The sum of the losses, the number of gates whose most likely token is the target, and the number of gates."""

        def work(budget: int) -> Tensor:
            sums = torch.zeros(3, device=self.device)
            for gates, scored in self.gate_loss.parts(batch, hidden, budget):
                n = torch.tensor(float(len(gates)), device=self.device)
                sums += torch.stack([scored.losses.sum(), scored.right.sum(), n])
            return sums

        return self._fitted(work, [batch], "scoring gates")

    def _fitted(self, work: Callable[[int], Tensor], batches: Sequence[GateBatch], what: str) -> Tensor:
        least = max((self.gate_loss.whole(batch) for batch in batches), default=1)
        most = min(self.budget, least)

        def attempt(budget: int) -> Tensor:
            if budget < most:
                self.budget = budget
                self.gate_loss.forget()
            return work(budget)

        return halving(attempt, most, device=self.device, what=f"{what} with a budget in bytes")


def _check(base: Model, mechanism: Mechanism, train: Sequence[GateBatch], validation: Sequence[GateBatch]) -> None:
    for batch in (*train, *validation):
        check_targets(base, batch)
    if not train:
        raise ProbeError("there is nothing to learn from: give at least one batch of gates")
    steering_layer(base, mechanism.layer)
    width = mechanism.vectors.shape[-1]
    if width != base.d_model:
        raise ProbeError(f"the mechanism's vectors are {width} wide and {base.name} is {base.d_model} wide")


def _in_epochs(n: int, per_step: int, generator: torch.Generator) -> Iterator[list[int]]:
    """The batches of each step; every epoch goes through all of them in an order of its own."""
    while True:
        order = torch.randperm(n, generator=generator).tolist()
        yield from (order[start : start + per_step] for start in range(0, n, per_step))


def typical_coordinate(base: Model, batches: Sequence[GateBatch], layer: int) -> float:
    """Measure the median size of a coordinate of ``resid_post.layer``, the unit in which vectors are learned."""
    states = []
    for batch in batches:
        found = resid_below(base, batch, layer)[batch.forced.valid]
        states.append(found[:: -(-len(found) // _TOKENS)].clone())
    return torch.cat(states).float().square().median().sqrt().item()


def _state(mechanism: Mechanism) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in mechanism.state_dict().items()}


@torch.no_grad()
def _evaluate(gate_loss: "_Fitted", batches: Prefix, accelerator: "Accelerator | None") -> dict[str, float]:
    sums = torch.zeros(3, device=batches.device)
    for batch, hidden in _mine(batches, accelerator):
        sums += gate_loss.sums(batch, hidden)
    total = _sum(sums, accelerator)
    check_finite(total, "the validation loss of the mechanism")
    loss, right, n = total.tolist()
    return {"loss": loss / max(n, 1), "accuracy": right / max(n, 1), "gates": int(n)}


@torch.no_grad()
def _mean_strengths(
    mechanism: Mechanism, batches: Prefix, accelerator: "Accelerator | None"
) -> Float[Tensor, " behaviours"]:
    """The mean strength of each behaviour at its own gates; one for a behaviour without a gate."""
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
    reduced: Any = tensor if accelerator is None else accelerator.reduce(tensor, "sum")
    return reduced

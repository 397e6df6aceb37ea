"""The exchangeable parts of a hybrid: *where* it is steered, *which* behaviour, *how strongly*.

Each part looks at a :class:`Moment`, what is known of a batch of rows at one decoding step, and nothing else. An arm of
an experiment is one choice of each; a control exchanges exactly one.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.steering import BehaviourVectors
from probe.taxonomy import Taxonomy


@dataclass(frozen=True)
class Moment:
    """One decoding step of some rows, before anything is added.

    Attributes:
        base_logits: the base model's unsteered next-token logits, ``[rows, vocab]``.
        thinking_logits: the thinking model's, on the same emitted text, ``[rows, vocab]``.
        base_resid: the base model's residual stream at the steering site, ``[rows, d_model]``.
        thinking_resid: the thinking model's at the taxonomy's site, ``[rows, d_model of the thinking model]``.
        draws: two uniform random numbers a row, fixed by seed, problem and position, ``[rows, 2]``.
    """

    base_logits: Float[Tensor, "rows vocab"]
    thinking_logits: Float[Tensor, "rows vocab"]
    base_resid: Float[Tensor, "rows d_model"]
    thinking_resid: Float[Tensor, "rows d_thinking"]
    draws: Float[Tensor, "rows 2"]

    def select(self, rows: Int[Tensor, " some"]) -> "Moment":
        """The same moment for some of the rows."""
        return Moment(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@runtime_checkable
class Where(Protocol):
    """A gate: at which rows to steer now."""

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]: ...


@runtime_checkable
class Which(Protocol):
    """The behaviour to add, for each row."""

    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]: ...


@runtime_checkable
class HowStrongly(Protocol):
    """The strength, for each row."""

    def __call__(self, moment: Moment, behaviour: Int[Tensor, " rows"], /) -> Float[Tensor, " rows"]: ...


@dataclass(frozen=True)
class Disagreement:
    """Steer where the two models' most likely tokens differ."""

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return moment.base_logits.argmax(-1) != moment.thinking_logits.argmax(-1)


@dataclass(frozen=True)
class RandomPositions:
    """Steer anywhere, at a given rate: the rate-matched control of the gate."""

    rate: float

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return moment.draws[:, 0] < self.rate


@dataclass(frozen=True)
class Never:
    """The base model alone."""

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return torch.zeros(len(moment.draws), dtype=torch.bool, device=moment.draws.device)


@dataclass(frozen=True)
class Always:
    """Every token."""

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return torch.ones(len(moment.draws), dtype=torch.bool, device=moment.draws.device)


@dataclass(frozen=True)
class ThinkingBehaviour:
    """The behaviour that the taxonomy reads off the thinking model's residual stream."""

    taxonomy: Taxonomy

    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]:
        return self.taxonomy.behaviour(moment.thinking_resid)


@dataclass(frozen=True)
class RandomBehaviour:
    """A behaviour drawn uniformly: the control of the choice."""

    n_behaviours: int

    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]:
        return (moment.draws[:, 1] * self.n_behaviours).long().clamp_(max=self.n_behaviours - 1)


@dataclass(frozen=True)
class OneBehaviour:
    """Always the same one."""

    behaviour: int = 0

    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]:
        return torch.full((len(moment.draws),), self.behaviour, device=moment.draws.device)


@dataclass(frozen=True)
class LearnedStrength:
    """What the strength network says."""

    vectors: BehaviourVectors

    def __call__(self, moment: Moment, behaviour: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        return self.vectors.strength(moment.base_resid, behaviour)


@dataclass(frozen=True)
class FixedStrength:
    """The same strength everywhere."""

    strength: float

    def __call__(self, _: Moment, behaviour: Int[Tensor, " rows"], /) -> Float[Tensor, " rows"]:
        return torch.full(behaviour.shape, self.strength, device=behaviour.device)

"""*Which* behaviour is added."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from probe.hybrid.moment import Moment, Needs, Which
from probe.steering import BasePolicy, ComingReader
from probe.taxonomy import Taxonomy


@dataclass(frozen=True)
class ThinkingBehaviour(Which):
    """The behaviour that the taxonomy reads off the thinking model's residual stream (Venhoff et al., 2510.07364).

    Where a sentence is about to begin, that is the behaviour of the sentence before; see :class:`ComingBehaviour`.

    ``pooled``: off its mean over the sentence under way, which is nearer to what the taxonomy was fitted on; otherwise
    off the newest token alone.
    """

    taxonomy: Taxonomy
    pooled: bool = False

    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]:
        layer = self.taxonomy.layer
        return self.taxonomy.behaviour(moment.sentence[layer] if self.pooled else moment.asked.resid[layer])

    @property
    def needs(self) -> Needs:
        return Needs(asks="yes", thinking=frozenset({self.taxonomy.layer}), pooled=self.pooled)


@dataclass(frozen=True)
class ComingBehaviour(Which):
    """The behaviour that the thinking model is about to show, read off its residual stream by a fitted reader."""

    reader: ComingReader

    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]:
        return self.reader(moment.asked.resid[self.reader.layer])

    @property
    def needs(self) -> Needs:
        return Needs(asks="yes", thinking=frozenset({self.reader.layer}))

    @property
    def fitted(self) -> tuple[nn.Module, ...]:
        return (self.reader,)


@dataclass(frozen=True)
class LearnedBehaviour(Which):
    """The behaviour that a policy predicts from the base model's own residual stream; nobody is asked."""

    policy: BasePolicy

    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]:
        return self.policy.behaviour(moment.base.resid)

    @property
    def needs(self) -> Needs:
        return Needs(base=frozenset(self.policy.layers))

    @property
    def fitted(self) -> tuple[nn.Module, ...]:
        return (self.policy,)


@dataclass(frozen=True)
class RandomBehaviour(Which):
    """A behaviour drawn uniformly: the control of the choice."""

    n_behaviours: int

    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]:
        return (moment.draws[:, 1] * self.n_behaviours).long().clamp_(max=self.n_behaviours - 1)


@dataclass(frozen=True)
class OneBehaviour(Which):
    """Always the same one."""

    behaviour: int = 0

    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]:
        return torch.full_like(moment.counts, self.behaviour)


@dataclass(frozen=True)
class LeastSimilar(Which):
    """Of all behaviours the one whose vector points furthest away from the right one's: a control harsher than chance.

    ``other[k]`` is that behaviour for behaviour ``k``; see :func:`least_similar`.
    """

    right: Which
    other: tuple[int, ...]

    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]:
        behaviour = self.right(moment)
        return torch.tensor(self.other, device=behaviour.device)[behaviour]

    @property
    def needs(self) -> Needs:
        return self.right.needs


def least_similar(vectors: Tensor) -> tuple[int, ...]:
    """For each vector ``[behaviours, d_model]`` the one of the lowest cosine with it.

    >>> least_similar(torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0]]))
    (2, 2, 0)
    """
    unit = torch.nn.functional.normalize(vectors.float(), dim=-1)
    return tuple((unit @ unit.T).argmin(-1).tolist())

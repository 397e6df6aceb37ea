"""Parts that choose *which* behaviour is added."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from probe.hybrid.moment import Moment, Needs, Which
from probe.steering import BasePolicy, ComingReader
from probe.taxonomy import Taxonomy


@dataclass(frozen=True)
class ThinkingBehaviour(Which):
    """The behaviour that the taxonomy finds in the thinking model's residual stream (Venhoff et al., 2510.07364).

    Where a sentence is about to begin, this is the behaviour of the previous sentence; see :class:`ComingBehaviour`.

    Attributes:
        taxonomy: the taxonomy.
        pooled: whether it reads the mean over the current sentence, which is closer to what it was fitted on; otherwise
            it reads the newest token alone.
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
    """The behaviour that the thinking model is about to show, predicted by a reader of its residual stream.

    Attributes:
        reader: from :func:`~probe.steering.learn_reader`.
    """

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
    """The behaviour that a policy predicts from the base model's residual stream, without asking the thinking model.

    Attributes:
        policy: from :func:`~probe.steering.learn_policy`.
    """

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
    """A uniformly random behaviour, the control of the choice.

    Attributes:
        n_behaviours: the number of behaviours to choose from.
    """

    n_behaviours: int

    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]:
        return (moment.random[:, 1] * self.n_behaviours).long().clamp_(max=self.n_behaviours - 1)


@dataclass(frozen=True)
class OneBehaviour(Which):
    """The same behaviour at every token.

    Attributes:
        behaviour: its number.
    """

    behaviour: int = 0

    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]:
        return torch.full_like(moment.counts, self.behaviour)


@dataclass(frozen=True)
class LeastSimilar(Which):
    """The behaviour whose vector is least similar to that of the right behaviour, a harsher control than a random one.

    Attributes:
        right: chooses the right behaviour.
        other: for each behaviour the least similar one, from :func:`least_similar`.
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
    """Find for each vector the index of the vector with the lowest cosine.

    Args:
        vectors: ``[behaviours, d_model]``.

    >>> least_similar(torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0]]))
    (2, 2, 0)
    """
    unit = torch.nn.functional.normalize(vectors.float(), dim=-1)
    return tuple((unit @ unit.T).argmin(-1).tolist())

"""What a gated row does: add a vector, or one of the rivals that add nothing to the base model."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from probe.hooks import Runner
from probe.hybrid.policy import Moment
from probe.steering import BehaviourVectors


@runtime_checkable
class Emit(Protocol):
    """The next token of the gated rows.

    Args of the call: the moment of these rows only, their behaviours and strengths, the base model's runner and the
    indices of the rows in it.
    """

    def __call__(
        self,
        moment: Moment,
        behaviour: Int[Tensor, " some"],
        strength: Float[Tensor, " some"],
        base: Runner,
        rows: Int[Tensor, " some"],
        /,
    ) -> Int[Tensor, " some"]: ...


@dataclass(frozen=True)
class AddVector:
    """The hybrid: shift the base model's residual stream and emit its own most likely token.

    Whether later tokens see the shifted state is a property of the vectors, which were learned for it.
    """

    vectors: BehaviourVectors

    def __call__(
        self,
        moment: Moment,
        behaviour: Int[Tensor, " some"],
        strength: Float[Tensor, " some"],
        base: Runner,
        rows: Int[Tensor, " some"],
    ) -> Int[Tensor, " some"]:
        shift = self.vectors.shift(strength, behaviour).to(moment.base_resid.dtype)
        return base.rerun(moment.base_resid + shift, rows, persistent=self.vectors.persistent).argmax(-1)


@dataclass(frozen=True)
class Rerank:
    """No vector at all: of the base model's own ``among`` most likely tokens, the one the thinking model likes best.

    This is what choosing among candidates by the thinking model gains without any steering.
    """

    among: int = 5

    def __call__(self, moment: Moment, /, *_: object) -> Int[Tensor, " some"]:
        candidates = moment.base_logits.topk(self.among, dim=-1).indices
        best = moment.thinking_logits.gather(-1, candidates).argmax(-1, keepdim=True)
        return candidates.gather(-1, best)[:, 0]


@dataclass(frozen=True)
class ForceToken:
    """Emit the thinking model's own token: the upper limit of any gate."""

    def __call__(self, moment: Moment, /, *_: object) -> Int[Tensor, " some"]:
        return moment.thinking_logits.argmax(-1)

"""How long a training takes: until the validation loss stops falling, whatever the number of texts.

A number of epochs does not say whether a training converged, because with few texts an epoch has few steps. So every
training counts steps, and the learning rate has three phases (warm-up, stable, decay; 2404.06395): it rises for a few
steps, stays constant until the validation loss stops falling, and then falls to zero.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

LEAST_GAIN = 0.01
"""An evaluation is progress if the validation loss falls by this share of its whole fall since the first step."""
_WARM_UP = 10
"""Number of steps in which the learning rate rises."""
_DECAY = 0.25
"""Length of the decay, as a share of the steps before it."""


class Check(TypedDict):
    """One evaluation of a training, as its files hold it; further figures may follow."""

    step: int
    loss: float
    train: NotRequired[float]
    """The mean loss of the steps before it."""


@dataclass
class Schedule:
    """Says for each step what the learning rate is, whether to evaluate, and when training ends.

    It depends on the evaluations alone, so a training that resumes has the same learning rates.

    Args:
        steps: the maximum number of steps.
        check_every: steps between two evaluations.
        patience: the learning rate falls after this many steps without progress.
        of_loss: if given, an evaluation is also progress if the loss falls by this share of itself. It is for losses
            that fall close to zero and matter there, such as that of a decision that is made at every token.
    """

    steps: int
    check_every: int
    patience: int
    of_loss: float | None = None
    converged: bool = field(default=False, init=False)
    """Whether the validation loss stopped falling before the maximum number of steps forced the decay."""

    def __post_init__(self) -> None:
        self._first = self._lowest = math.inf
        self._progress_at = 0
        self._decay_at, self._end = int(self.steps / (1 + _DECAY)), self.steps

    def replay(self, history: Iterable[Mapping[str, float]]) -> "Schedule":
        """Take the evaluations of an interrupted training, each with its ``step`` and ``loss``, and return itself."""
        for each in history:
            self.update(int(each["step"]), each["loss"])
        return self

    def due(self, step: int) -> bool:
        """Whether to evaluate after this many steps."""
        return step % self.check_every == 0 or step == self._decay_at or self.ended(step)

    def update(self, step: int, loss: float) -> None:
        """Take the validation loss after this many steps."""
        if self.converged or step >= self._decay_at:
            return
        if math.isinf(self._first):
            self._first = self._lowest = loss
        elif self._lowest - loss > self._least(loss):
            self._lowest, self._progress_at = loss, step
        elif step - self._progress_at >= self.patience:
            self._decay_at, self.converged = step, True
            self._end = step + max(1, math.ceil(_DECAY * step))

    def _least(self, loss: float) -> float:
        """How much lower a loss has to be than the lowest to count as progress."""
        of_fall = LEAST_GAIN * (self._first - loss)
        return of_fall if self.of_loss is None else min(of_fall, self.of_loss * self._lowest)

    def rate(self, step: int) -> float:
        """The learning rate of the next step after this many steps, as a share of the highest."""
        warm = min(1.0, (step + 1) / _WARM_UP)
        return warm * min(1.0, 1 - (step - self._decay_at) / (self._end - self._decay_at))

    def ended(self, step: int) -> bool:
        """Whether training is over after this many steps."""
        return step >= self._end

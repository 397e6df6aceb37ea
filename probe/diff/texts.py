"""The models, the traces and the pairs of texts that the parts of a comparison share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

from probe.activations import documents_of
from probe.circuits import Pairs, behaviour_pairs
from probe.diff.difference import ActivationDifference, activation_difference
from probe.diff.risen import Risen, risen_behaviour
from probe.models import Model, Pair
from probe.problems import Problem, ProblemSet
from probe.taxonomy import Behaviour
from probe.traces import Traces


class Documents(Sequence[tuple[int, ...]]):
    """The token ids of traces with their prompts; they are computed on request and not kept.

    Args:
        model: encodes the prompts.
        traces: the traces.
    """

    def __init__(self, model: Model, traces: Traces) -> None:
        self._model, self._traces = model, traces

    def __len__(self) -> int:
        return len(self._traces)

    @overload
    def __getitem__(self, at: int) -> tuple[int, ...]: ...
    @overload
    def __getitem__(self, at: slice) -> "Documents": ...
    def __getitem__(self, at: "int | slice") -> "tuple[int, ...] | Documents":
        if isinstance(at, slice):
            return Documents(self._model, self._traces[at])
        return documents_of(self._model, self._traces[at : at + 1] if at >= 0 else self._traces[at:][:1])[0].ids

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return (self[at] for at in range(len(self)))


@dataclass
class Texts:
    """What the parts of a comparison share; what several parts need is made once.

    Attributes:
        asked: the behaviour that was named; None for the one that rose most.
        layer: the layer at which states are compared; None for the middle layer.
        sae: the SAE whose latents are compared in both models; None for none.
    """

    pair: Pair
    problem_set: ProblemSet
    problems: tuple[Problem, ...]
    traces: Traces
    asked: Behaviour | None
    n_pairs: int
    layer: int | None
    sae: Any
    max_new_tokens: int
    seed: int
    progress: bool

    @property
    def behaviour(self) -> Behaviour:
        return self.asked or self.risen.behaviour

    @cached_property
    def risen(self) -> Risen:
        return risen_behaviour(
            self.pair, self.problem_set, self.problems, self.traces, max_new_tokens=self.max_new_tokens
        )

    @property
    def known(self) -> Behaviour | None:
        """The behaviour, if one was named or a part has needed it."""
        risen: Risen | None = self.__dict__.get("risen")
        return self.asked or (risen and risen.behaviour)

    @property
    def middle(self) -> int:
        """The layer at which states are compared."""
        return (
            (min(self.pair.base.n_layers, self.pair.thinking.n_layers) - 1) // 2 if self.layer is None else self.layer
        )

    @property
    def documents(self) -> Documents:
        return Documents(self.pair.thinking, self.traces)

    @cached_property
    def difference(self) -> ActivationDifference:
        return activation_difference(
            self.pair, self.traces, self.problems, layer=self.middle, behaviour=self.known, seed=self.seed
        )

    @property
    def halves(self) -> tuple[slice, slice]:
        """Problems to fit on, and others to test on."""
        half = len(self.problems) // 2
        return slice(0, half), slice(half, None)

    def equations(self, build: Callable[..., Pairs], some: slice, n_pairs: int) -> Pairs:
        return build(self.pair.thinking, self.traces[some], self.problems[some], n_pairs=n_pairs, seed=self.seed)

    def behaviours(self, some: slice) -> Pairs:
        return behaviour_pairs(
            self.pair.thinking, self.traces[some], self.problems[some], self.behaviour,
            n_pairs=self.n_pairs, seed=self.seed,
        )  # fmt: skip

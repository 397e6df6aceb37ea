"""The models, the traces and the pairs of texts that the parts of a comparison share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from probe.activations import documents_of
from probe.circuits import Pairs, behaviour_pairs
from probe.diff.difference import ActivationDifference, activation_difference, middle_layer
from probe.diff.risen import Risen, risen_behaviour
from probe.errors import NotApplicable
from probe.models import GREEDY, Pair, Sampling
from probe.problems import Problem, ProblemSet
from probe.taxonomy import Behaviour
from probe.traces import Traces


@dataclass
class Texts:
    """What the parts of a comparison share; what several parts need is made once.

    Attributes:
        asked: the behaviour that was named; None for the one that rose most.
        context: the largest number of tokens of a text of the behaviour's pairs, prompt included.
        layer: the layer at which states are compared; None for the middle layer.
        sae: the SAE whose latents are compared in both models; None for none.
        sampling: how the traces were sampled.
    """

    pair: Pair
    problem_set: ProblemSet
    problems: tuple[Problem, ...]
    traces: Traces
    asked: Behaviour | None
    n_pairs: int
    context: int
    layer: int | None
    sae: Any
    max_new_tokens: int
    sampling: Sampling = GREEDY
    seed: int = 0
    progress: bool = False

    @property
    def behaviour(self) -> Behaviour:
        return self.asked or self.risen.behaviour

    @cached_property
    def risen(self) -> Risen:
        return risen_behaviour(
            self.pair, self.problem_set, self.problems, self.traces,
            max_new_tokens=self.max_new_tokens, sampling=self.sampling, seed=self.seed, progress=self.progress,
        )  # fmt: skip

    @cached_property
    def found(self) -> Behaviour | None:
        """The behaviour, for parts that can do without; None if none was named and none rose."""
        try:
            return self.behaviour
        except NotApplicable:
            return None

    @property
    def middle(self) -> int:
        """The layer at which states are compared."""
        return middle_layer(self.pair) if self.layer is None else self.layer

    def ids(self, n: int) -> list[tuple[int, ...]]:
        """The token ids of the first traces, with their prompts."""
        return [each.ids for each in documents_of(self.pair.thinking, self.traces[:n])]

    @cached_property
    def difference(self) -> ActivationDifference:
        return activation_difference(
            self.pair, self.traces, self.problems, layer=self.middle, behaviour=self.found, seed=self.seed
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
            n_pairs=self.n_pairs, context=self.context, seed=self.seed,
        )  # fmt: skip

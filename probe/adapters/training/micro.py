"""A step of training in micro-batches that fit into the model's budget, and in halves of it once memory runs out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from probe.adapters.training.objective import Objective
from probe.adapters.training.packing import Example, Packed, in_rows, pack_rows, row_length
from probe.hooks import checkpointed
from probe.models import Model, halving, seeded

if TYPE_CHECKING:
    from peft import PeftModel

T = TypeVar("T")


class MicroBatches:
    """Divides texts into batches that fit, and runs them.

    Args:
        model: the base model, without an adapter.
        objective: what is computed.
        length: the length in tokens of the rows into which texts are packed.
    """

    def __init__(self, model: Model, objective: Objective, length: int) -> None:
        self.model, self.objective, self.length = model, objective, row_length(model, length)
        self.cost, self.budget = objective.cost(model), model.budget

    def batches(self, texts: Sequence[Example], budget: int) -> Iterator[tuple[Packed, bool]]:
        """The texts in batches that fit into a budget, each with whether its blocks are checkpointed."""

        def tokens(row: Sequence[int]) -> int:
            return sum(len(texts[i].ids) for i in row)

        for rows, light in self.cost.micro_batches(in_rows(texts, self.length), tokens, budget):
            yield pack_rows(self.model, texts, rows), light

    @contextmanager
    def scored(self, wrapped: "PeftModel", batch: Packed, budget: int, *, light: bool = False) -> Iterator[Tensor]:
        """The losses of a batch; the backward pass belongs inside the block."""
        chunk = self.cost.chunk(budget)
        with (
            checkpointed(self.model) if light else nullcontext(),
            self.objective.scoring(self.model, wrapped.disable_adapter, batch, chunk) as losses,
        ):
            yield losses

    def fitted(self, work: Callable[[int], T], texts: Sequence[Example], seed: int, what: str) -> T:
        """Do work within the budget, seeded; with half of it from then on if memory runs out.

        Args:
            work: called with the budget in bytes, and again from the beginning if memory runs out.
            texts: what it works on.
            seed: seeds torch's random numbers before each attempt.
            what: names the work in messages.
        """
        rows = in_rows(texts, self.length)
        width = max((sum(len(texts[i].ids) for i in row) for row in rows), default=0)
        most = min(self.budget, self.cost.whole(len(rows), width))

        def attempt(budget: int) -> T:
            if budget < most:
                self.budget = budget
            with seeded(seed, *self.model.devices):
                return work(budget)

        return halving(attempt, most, device=self.model.device, what=f"{what} with a budget in bytes")

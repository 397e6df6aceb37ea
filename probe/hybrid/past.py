"""What scripts and phases read of the text so far, updated with every emitted token instead of read from all of it."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from probe.hybrid.closing import Closing


@dataclass(frozen=True)
class History:
    """What is known of the tokens that each row has emitted so far.

    Attributes:
        first: the first token; −1 before it.
        first_steered: whether the gate was open at the first token.
        own: the number of tokens up to the last one at which the gate was closed; 0 if there is none.
        closed: for each closing tag, the number of tokens up to the end of the first one; 0 if there is none.
    """

    first: Int[Tensor, " rows"]
    first_steered: Bool[Tensor, " rows"]
    own: Int[Tensor, " rows"]
    closed: dict[Closing, Int[Tensor, " rows"]]

    def __getitem__(self, rows: Int[Tensor, " some"]) -> "History":
        """The history of some rows."""
        closed = {tag: counts[rows] for tag, counts in self.closed.items()}
        return History(self.first[rows], self.first_steered[rows], self.own[rows], closed)


class HistoryState:
    """The history of each item.

    Args:
        items: the number of items.
        tags: the closing tags that are looked for.
        device: where the emitted tokens are.
    """

    def __init__(self, items: int, tags: Iterable[Closing], device: torch.device) -> None:
        self.first, self.own = (torch.zeros(items, dtype=torch.long, device=device) for _ in range(2))
        self.first_steered = torch.zeros(items, dtype=torch.bool, device=device)
        self.state = {tag.on(device): torch.zeros_like(self.own) for tag in tags}
        self.closed = {tag: torch.zeros_like(self.own) for tag in self.state}

    def advance(self, items: Int[Tensor, " rows"], counts: Int[Tensor, " rows"], last: Int[Tensor, " rows"]) -> History:
        """Note the last token of some rows, which follows what was noted of them before.

        Args:
            items: the item of each row.
            counts: the number of tokens that each row has emitted; at 0, its history begins anew.
            last: the token that each row emitted last; −1 before its first token.
        """
        begun = counts > 0
        self.first[items] = torch.where(counts > 1, self.first[items], last)
        for kept in (self.own, self.first_steered, *self.state.values(), *self.closed.values()):
            kept[items] = kept[items] * begun
        for tag, kept in self.state.items():
            state, closed = tag.after(kept[items], last), self.closed[tag][items]
            kept[items] = state
            self.closed[tag][items] = torch.where(tag.found(state) & (closed == 0), counts, closed)
        closed = {tag: counts[items] for tag, counts in self.closed.items()}
        return History(self.first[items], self.first_steered[items], self.own[items], closed)

    def steer(self, items: Int[Tensor, " rows"], counts: Int[Tensor, " rows"], gate: Bool[Tensor, " rows"]) -> None:
        """Note whether the gate is open at the next token of some rows.

        Args:
            items, counts: as in :meth:`advance`.
            gate: whether it is open.
        """
        self.own[items] = torch.where(gate, self.own[items], counts + 1)
        self.first_steered[items] = torch.where(counts > 0, self.first_steered[items], gate)

"""What blocks without attention keep of each row of a batch: its state after the newest column.

Keys and values have a column for each token, so a column can be run again or hidden. A state has none: it is advanced
by each token, and nothing of it can be taken back. So the state before the newest column is kept too in the blocks
above the steering layer, where that column may be run again.
"""

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

Name = tuple[str, int, int]
"""What the state is, the layer that it belongs to, and its number in that layer."""


class RowStates:
    """The states of all rows. The tensors of a layer are made by its first pass, on the device of the layer.

    Args:
        rows: the number of rows.
        above: the layer above which the state before the newest column is kept too; None to keep none.
    """

    def __init__(self, rows: int, above: int | None) -> None:
        self.rows, self.above = rows, above
        self.now: dict[Name, Tensor] = {}
        """Each state after the newest column, ``[rows, ...]``."""
        self.before: dict[Name, Tensor] = {}
        """Each state before the newest column, for the layers above ``above``."""

    def read(self, name: Name, rows: Int[Tensor, " some"] | None) -> Shaped[Tensor, "some ..."]:
        """The states from which the next column is run, in all rows; or the newest column again, in some rows."""
        return self.now[name] if rows is None else self.before[name][rows.to(self.before[name].device)]

    def advance(self, name: Name, new: Shaped[Tensor, "rows ..."]) -> None:
        """Replace the states of all rows by those after one more column."""
        if name in self.now and self.twice(name):
            self.before[name] = self.now[name]
        self.now[name] = new

    def begin(self, name: Name, new: Shaped[Tensor, "some ..."], rows: Int[Tensor, " some"] | None) -> None:
        """Set the states of some rows (None: all), which begin; those before their newest column are empty."""
        self._set(self.now, name, new, rows)
        self.begin_before(name, torch.zeros_like(new), rows)

    def begin_before(self, name: Name, new: Shaped[Tensor, "some ..."], rows: Int[Tensor, " some"] | None) -> None:
        """Set the states before the newest column of some rows (None: all), which begin."""
        if self.twice(name):
            self._set(self.before, name, new, rows)

    def keep(self, rows: Int[Tensor, " some"]) -> None:
        """Keep only these rows, in this order."""
        self.rows = len(rows)
        for held in (self.now, self.before):
            for name in list(held):  # one after the other, so that no two are held twice
                held[name] = held[name][rows.to(held[name].device)]

    def copy(self, rows: Int[Tensor, " some"], to: Int[Tensor, " some"]) -> None:
        """Copy the states of some rows to other rows."""
        for held in (self.now, self.before):
            for state in held.values():
                state[to.to(state.device)] = state[rows.to(state.device)]

    def correct(self, name: Name, new: Shaped[Tensor, "some ..."], rows: Int[Tensor, " some"]) -> None:
        """Set the states of some rows whose newest column was run again."""
        self._set(self.now, name, new, rows)

    def twice(self, name: Name) -> bool:
        """Whether the state before the newest column is kept too."""
        return self.above is not None and name[1] > self.above

    def _set(self, held: dict[Name, Tensor], name: Name, new: Tensor, rows: Tensor | None) -> None:
        if rows is None:
            held[name] = new
            return
        if name not in held:
            held[name] = new.new_zeros(self.rows, *new.shape[1:])
        held[name][rows.to(new.device)] = new

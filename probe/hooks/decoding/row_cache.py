"""A key/value cache whose rows can be run separately, removed and replaced, and which grows as tokens come.

The caches of transformers cannot serve here: the static one holds the longest possible row from the start, the
dynamic one is copied at every token, and the paged one is written and scheduled by its own generation loop, which runs
no column again above a layer.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from transformers import Cache

from probe.hooks.decoding.row_states import Name, RowStates

_LEAST = 32
"""The number of free columns after the cache was moved, at least."""
_SHARE = 8
"""One free column in this many after the cache was moved: it is moved seldom, and little of it is empty."""
_NEVER = 2**40
"""The first column of a row that has ended, beyond every column."""


class RowCache(Cache):
    """Keys, values and states of all rows; a pass writes a range of columns, for all rows or some.

    All rows end in the same column, wherever they begin, so that one more token is one more column for every row, and
    as many columns are needed as the longest row has tokens.

    Args:
        rows: the number of rows, all of them empty.
        device: the device of the numbers of rows and columns.
        again: the layer above which columns may be run again; None if none may.
    """

    def __init__(self, rows: int, device: torch.device, again: int | None = None) -> None:
        super().__init__(layers=[])
        self.begin = torch.full((rows,), _NEVER, device=device)
        """The column of the first token of each row; beyond every column in a row that has ended."""
        self.origin = torch.zeros_like(self.begin)
        """The number of each row, in order of arrival."""
        self.begun = 0
        """The number of rows that have arrived."""
        self.first = 0
        """The first column that holds a token of an active row; earlier columns are ignored."""
        self.column = 0
        """The column where the next pass writes."""
        self.capacity = 0
        """The number of columns that there is memory for."""
        self.rows: Tensor | None = None
        """The rows that the next pass runs; None for all. A row may be repeated if nothing is kept."""
        self.apart = False
        """Whether the next pass begins its rows, so that it attends only to itself."""
        self.kept = True
        """Whether the keys and values of the next pass are kept. If they are not, a pass that begins its rows ends
        before the newest column, and only the states there are kept."""
        self.stores: dict[tuple[str, int], Tensor] = {}
        """What each layer keeps of every column, ``[rows, heads, capacity, width]``: its keys and values."""
        self.states = RowStates(rows, again)
        """What layers without attention keep of every row."""
        self._lent: dict[Name, Tensor] = {}
        """Copies of states that layers have asked for in this pass and not yet replaced."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        return self.write("keys", layer_idx, key_states), self.write("values", layer_idx, value_states)

    def write(self, what: str, layer: int, new: Tensor) -> Tensor:
        """Write the states of the pass that runs now, and return those that it attends to, from ``first`` on.

        Args:
            what: names the states.
            layer: the layer that they belong to.
            new: ``[rows, heads, columns, width]``, of the rows that are run.
        """
        store = self.stores.get((what, layer))
        if store is None:
            store = new.new_zeros(len(self.begin), new.shape[1], self.capacity, new.shape[-1])
            self.stores[what, layer] = store
        end = self.column + new.shape[2]
        if self.apart and not self.kept:
            return new
        if self.rows is None:
            store[:, :, self.column : end] = new
            return store[:, :, self.first : end]
        rows = self.rows.to(store.device)
        if self.kept:
            store[rows, :, self.column : end] = new
        if self.apart:
            return new
        seen = store[rows, :, self.first : end]
        if not self.kept:
            seen[:, :, self.column - self.first :] = new
        return seen

    @property
    def _whole(self) -> bool:
        """Whether the next pass runs its rows from their first column."""
        return self.apart or self.column == self.first

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:  # noqa: ARG002
        return not self._whole

    def is_recording_past(self, layer_idx: int) -> bool:  # noqa: ARG002
        return True  # so that most layers call update_conv_state for a single column too

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        return self._lend(("conv", layer_idx, state_idx))

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        return self._lend(("recurrent", layer_idx, state_idx))

    def _lend(self, name: Name) -> Tensor | None:
        """The state from which a layer runs the next columns; it may write into it, and :meth:`settle` keeps that."""
        if self._whole:
            return None
        state = self.states.read(name, self.rows)
        if self.rows is None and not self.states.twice(name):
            return state  # to be replaced, whatever the layer does
        self._lent[name] = state.clone() if self.rows is None else state
        return self._lent[name]

    def settle(self) -> None:
        """Keep the states into which layers wrote, at the end of a pass."""
        lent, self._lent = self._lent, {}
        for name, state in lent.items():
            self._keep_state(name, state)

    def update_conv_state(
        self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, *, conv_kernel_size: int, **_: object
    ) -> Tensor:
        name = ("conv", layer_idx, state_idx)
        before = self._lend(name)
        if before is None:
            missing = max(0, conv_kernel_size - conv_states.shape[-1])
            whole = torch.nn.functional.pad(conv_states, (missing, 0))
        else:
            whole = torch.cat([before, conv_states], -1)
        # A view would hold the whole prompt.
        self._keep_state(name, whole[..., -conv_kernel_size:].clone())
        return whole

    def update_recurrent_state(
        self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **_: object
    ) -> Tensor:
        self._keep_state(("recurrent", layer_idx, state_idx), recurrent_states)
        return recurrent_states

    def _keep_state(self, name: Name, new: Shaped[Tensor, "some ..."]) -> None:
        """Keep the states after the pass that runs now, as far as they are to be kept."""
        self._lent.pop(name, None)
        if self.apart and self.kept:
            self.states.begin(name, new, self.rows)
        elif self.apart:
            self.states.begin_before(name, new, self.rows)
        elif self.kept and self.rows is not None:
            self.states.correct(name, new, self.rows)
        elif self.kept:
            self.states.advance(name, new)

    def get_seq_length(self, layer_idx: int | None = None) -> int:
        # A layer asks only to count columns as positions, which `longest_text` limits to where they do not matter.
        return self.column if layer_idx is None else 0

    def get_query_offset(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        """Where the first column of the pass lies among those that it attends to."""
        return 0 if self.apart else self.column - self.first

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.get_query_offset(layer_idx) + query_length, 0

    def real(self, first: int, end: int) -> Bool[Tensor, "rows columns"]:
        """Which columns of a range are tokens, in the rows that the next pass runs."""
        return self._columns(first, end) >= self._begins

    def positions(self, first: int, end: int) -> Int[Tensor, "rows columns"]:
        """The position of each column of a range in its row, in the rows that the next pass runs; 0 at padding."""
        return (self._columns(first, end) - self._begins).clamp_(min=0)

    @property
    def _begins(self) -> Int[Tensor, "rows 1"]:
        return (self.begin if self.rows is None else self.begin[self.rows])[:, None]

    def _columns(self, first: int, end: int) -> Int[Tensor, " columns"]:
        return torch.arange(first, end, device=self.begin.device)

    def arrive(self, rows: Int[Tensor, " some"], lengths: Int[Tensor, " some"]) -> None:
        """Begin rows anew, so that their prompts of these lengths end in the newest column."""
        self.begin[rows] = self.column - lengths
        self.origin[rows] = torch.arange(self.begun, self.begun + len(rows), device=rows.device)
        self.begun += len(rows)

    def leave(self, kept: Int[Tensor, " some"]) -> None:
        """End all rows but these; they keep their places."""
        begin = torch.full_like(self.begin, _NEVER)
        begin[kept] = self.begin[kept]
        self.begin = begin

    def keep(self, rows: Int[Tensor, " some"]) -> None:
        """Keep only these rows, in this order."""
        self.begin, self.origin = self.begin[rows], self.origin[rows]
        for name, store in self._each():
            self.stores[name] = store[rows.to(store.device)]
        self.states.keep(rows)

    def copy(self, rows: Int[Tensor, " some"], to: Int[Tensor, " some"], columns: int) -> None:
        """Copy the last columns and the states of some rows to other rows."""
        for _, store in self._each():
            end = slice(self.column - columns, self.column)
            store[to.to(store.device), :, end] = store[rows.to(store.device), :, end]
        self.states.copy(rows, to)

    def trim(self) -> None:
        """Ignore the leading columns in which no row has a token."""
        if len(self.begin):
            self.first = max(self.first, min(int(self.begin.min()), self.column))

    def reserve(self, columns: int, *, most: int | None = None, stay: bool = False) -> None:
        """Make sure that there is memory for more columns.

        What is held moves to the front if enough columns are free there; otherwise the cache grows by a part.

        Args:
            columns: the number of columns that the next pass writes.
            most: the number of columns that all rows together will ever need; None if that is unknown.
            stay: keep every column where it is.
        """
        if self.column + columns <= self.capacity:
            return
        if not stay:
            self.trim()
        need = self.column + columns - (0 if stay else self.first)
        self.move(self.first if stay else 0, with_room(need, most))

    def move(self, start: int, capacity: int) -> None:
        """Move the columns from :attr:`first` on to ``start``, in a cache of at least this capacity."""
        held, shift = self.column - self.first, start - self.first
        grow = capacity > self.capacity
        for name, old in self._each():
            if grow:
                self.stores[name] = old.new_zeros(*old.shape[:2], capacity, old.shape[-1])
                self.stores[name][:, :, start : start + held] = old[:, :, self.first : self.column]
                continue
            for part in _parts(self.first, self.column, shift):
                old[:, :, part.start + shift : part.stop + shift] = old[:, :, part]
        self.capacity = max(capacity, self.capacity)
        self.begin = torch.where(self.begin < _NEVER, self.begin + shift, _NEVER)
        self.first, self.column = start, start + held

    def _each(self) -> Iterator[tuple[tuple[str, int], Tensor]]:
        """Every store with its name, one after the other, so that no two are held twice when they are replaced."""
        for name in list(self.stores):
            yield name, self.stores[name]


def with_room(columns: int, most: int | None = None) -> int:
    """The capacity of a cache that is to hold so many columns, with some free ones, but ``most`` are enough."""
    room = columns + max(_LEAST, columns // _SHARE)
    return room if most is None else max(columns, min(room, most))


def _parts(first: int, end: int, shift: int) -> Iterator[slice]:
    """Ranges of columns that can be moved one after the other without writing on what is still to be moved."""
    if shift < 0:
        yield from (slice(at, min(at - shift, end)) for at in range(first, end, -shift))
    elif shift > 0:
        yield from (slice(max(at - shift, first), at) for at in range(end, first, -shift))

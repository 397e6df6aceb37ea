"""A key/value cache whose rows can be run separately, removed and replaced."""

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import Cache


class RowCache(Cache):
    """Keys and values of all rows; a pass writes a range of columns, for all rows or some.

    All rows end in the same column, wherever they begin, so that one more token is one more column for every row.

    Args:
        valid: False at padding; one column for each place in the cache.
    """

    def __init__(self, valid: Bool[Tensor, "rows capacity"]) -> None:
        super().__init__(layers=[])
        self.valid = valid
        self.origin = torch.arange(len(valid), device=valid.device)
        """The number of each row, in order of arrival."""
        self.begun = len(valid)
        """The number of rows that have arrived."""
        self.first = 0
        """The first column that holds a token of an active row; earlier columns are ignored."""
        self.column = 0
        """The column where the next pass writes."""
        self.rows: Tensor | None = None
        """The rows that the next pass runs; None for all. A row may be repeated if nothing is kept."""
        self.apart = False
        """Whether the next pass begins its rows, so that it attends only to itself."""
        self.kept = True
        """Whether the keys and values of the next pass are kept."""
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        if layer_idx not in self.keys:
            shape = (*self.valid.shape, key_states.shape[1])
            self.keys[layer_idx] = key_states.new_zeros(shape[0], shape[2], shape[1], key_states.shape[-1])
            self.values[layer_idx] = value_states.new_zeros(shape[0], shape[2], shape[1], value_states.shape[-1])
        return self._one(self.keys[layer_idx], key_states), self._one(self.values[layer_idx], value_states)

    def _one(self, store: Tensor, new: Tensor) -> Tensor:
        end = self.column + new.shape[2]
        if self.rows is None:
            store[:, :, self.column : end] = new
            return store[:, :, self.first : end]
        if self.kept:
            store[self.rows, :, self.column : end] = new
        if self.apart:
            return new
        seen = store[self.rows, :, self.first : end]
        if not self.kept:
            seen[:, :, self.column - self.first :] = new
        return seen

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 - the signature is transformers'
        return self.column

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows, in this order; a row may be repeated."""
        self.valid, self.origin = self.valid[rows], self.origin[rows]
        for states in (self.keys, self.values):
            for layer in states:
                states[layer] = states[layer][rows]

    def move(self, start: int, capacity: int) -> None:
        """Move the columns from :attr:`first` on to ``start``, in a cache of another capacity."""
        end = start + self.column - self.first
        valid = self.valid.new_ones(len(self.valid), capacity)
        valid[:, :start] = False
        valid[:, start:end] = self.valid[:, self.first : self.column]
        valid[:, end:] = self.valid[:, self.column - 1 : self.column]  # a row that has ended gets no further tokens
        for states in (self.keys, self.values):
            for layer, old in states.items():
                states[layer] = old.new_zeros(*old.shape[:2], capacity, old.shape[-1])
                states[layer][:, :, start:end] = old[:, :, self.first : self.column]
        self.valid, self.first, self.column = valid, start, end

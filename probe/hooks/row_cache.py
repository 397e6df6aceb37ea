"""A key/value cache whose rows can be run apart and can leave."""

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import Cache


class RowCache(Cache):
    """Keys and values of all rows, of fixed capacity; a pass writes one stretch of columns, for all rows or some.

    Args:
        valid: which columns hold tokens, up to the capacity; False at padding.
    """

    def __init__(self, valid: Bool[Tensor, "rows capacity"]) -> None:
        super().__init__(layers=[])
        self.valid = valid
        self.origin = torch.arange(len(valid), device=valid.device)
        """Which row of the batch, as it began, each row is."""
        self.begun = len(valid)
        """How many rows the batch began with."""
        self.column = 0
        """Where the next pass writes."""
        self.rows: Tensor | None = None
        """The rows the next pass runs; None for all."""
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        if layer_idx not in self.keys:
            shape = (key_states.shape[0], key_states.shape[1], self.valid.shape[1])
            self.keys[layer_idx] = key_states.new_zeros(*shape, key_states.shape[-1])
            self.values[layer_idx] = value_states.new_zeros(*shape, value_states.shape[-1])
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        end = self.column + key_states.shape[2]
        if self.rows is None:
            keys[:, :, self.column : end] = key_states
            values[:, :, self.column : end] = value_states
            return keys[:, :, :end], values[:, :, :end]
        keys[self.rows, :, self.column : end] = key_states
        values[self.rows, :, self.column : end] = value_states
        return keys[self.rows, :, :end], values[self.rows, :, :end]

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 - the signature is transformers'
        return self.column

    def column_of(self, layer: int, rows: Tensor, column: int) -> tuple[Tensor, Tensor]:
        """A copy of what some rows have in one column."""
        return self.keys[layer][rows, :, column], self.values[layer][rows, :, column]

    def keep(self, rows: Tensor) -> None:
        """Only these rows, in this order; a row may be named several times."""
        self.valid, self.origin = self.valid[rows], self.origin[rows]
        for states in (self.keys, self.values):
            for layer in states:
                states[layer] = states[layer][rows]

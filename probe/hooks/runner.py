"""A batch of sequences under way in one model: left padded, with a key/value cache that is written in place.

Both models of a pair decode through this, steered or not, and so do plain rollouts: a step runs the new column once,
hands out the residual stream where it was asked to read, and can be run again above a site with a shift for some rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache

from probe.hooks.upper import UpperLayers, causal_masks
from probe.models import Model


class RowCache(Cache):
    """Keys and values of all rows, of fixed capacity; a pass writes one stretch of columns, for all rows or some."""

    def __init__(self, capacity: int) -> None:
        super().__init__(layers=[])
        self.capacity = capacity
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
            shape = (key_states.shape[0], key_states.shape[1], self.capacity)
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
        for states in (self.keys, self.values):
            for layer in states:
                states[layer] = states[layer][rows]


@dataclass(frozen=True)
class Step:
    """What one pass gives for the newest column: ``logits`` and, per layer read, the residual stream ``resid_post``."""

    logits: Float[Tensor, "rows vocab"]
    resid: dict[int, Float[Tensor, "rows d_model"]]


class Runner:
    """Decodes rows token by token.

    Args:
        model: the model that runs.
        prompts: token ids, one list a row; at least one token each.
        new_tokens: how many columns may follow the prompts.
        read: 0-based layers whose ``resid_post`` each step hands out.
        steer: the layer above which :meth:`rerun` works; read as well.
    """

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Sequence[int]],
        new_tokens: int,
        *,
        read: Sequence[int] = (),
        steer: int | None = None,
    ) -> None:
        self.model = model
        self.read: set[int] = set(read) | (set() if steer is None else {steer})
        self.upper = None if steer is None else UpperLayers(model, steer)
        width = max(len(prompt) for prompt in prompts)
        self.cache = RowCache(width + new_tokens)
        self.ids = torch.full((len(prompts), width), model.pad_id, device=model.device)
        self.valid = torch.zeros(len(prompts), width + new_tokens, dtype=torch.bool, device=model.device)
        for row, prompt in enumerate(prompts):
            self.ids[row, width - len(prompt) :] = torch.tensor(prompt, device=model.device)
            self.valid[row, width - len(prompt) :] = True
        self.valid[:, width:] = True
        self.positions = self.valid.long().cumsum(1).sub(1).clamp_(min=0)
        self.slots = torch.arange(len(prompts), device=model.device)
        """Where each row that is still under way lies in the cache."""

    @torch.no_grad()
    def prefill(self) -> Step:
        """Run the prompts."""
        return self._run(self.ids)

    @torch.no_grad()
    def step(self, tokens: Int[Tensor, " rows"]) -> Step:
        """Run one more token in every row."""
        ids = torch.full((len(self.valid), 1), self.model.pad_id, device=self.model.device)
        ids[self.slots, 0] = tokens
        return self._run(ids)

    def _run(self, ids: Tensor) -> Step:
        start, end = self.cache.column, self.cache.column + ids.shape[1]
        resid: dict[int, Tensor] = {}

        def reader(layer: int):
            def read(_module: object, _inputs: object, output: Tensor | tuple) -> None:
                resid[layer] = (output if isinstance(output, Tensor) else output[0])[:, -1]

            return read

        handles = [self.model.layers[layer].register_forward_hook(reader(layer)) for layer in self.read]
        try:
            out = self.model.hf(
                input_ids=ids,
                attention_mask=causal_masks(self.model, self.valid[:, :end], ids.shape[1]),
                position_ids=self.positions[:, start:end],
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        finally:
            for handle in handles:
                handle.remove()
        self.cache.column = end
        return Step(out.logits[self.slots, -1].float(), {layer: state[self.slots] for layer, state in resid.items()})

    @torch.no_grad()
    def rerun(
        self, hidden: Float[Tensor, "some d_model"], rows: Int[Tensor, " some"], *, persistent: bool = True
    ) -> Float[Tensor, "some vocab"]:
        """Run the newest column of some rows again, from ``hidden`` at ``resid_post.steer`` upwards.

        Args:
            hidden: the shifted residual stream of these rows.
            rows: which rows.
            persistent: leave the shifted keys and values in the cache, as a full forward pass with the same shift would
                have them; otherwise only the logits feel the shift.
        """
        if self.upper is None:
            raise RuntimeError("this Runner was made without a layer to steer")
        cache, column, rows = self.cache, self.cache.column - 1, self.slots[rows]
        before = {} if persistent else {layer: cache.column_of(layer, rows, column) for layer in cache.keys}
        cache.rows, cache.column = rows, column
        try:
            logits = self.upper(
                hidden[:, None],
                attention_mask=causal_masks(self.model, self.valid[rows, : column + 1], 1),
                position_ids=self.positions[rows, column : column + 1],
                cache=cache,
                logits_to_keep=1,
            )
        finally:
            cache.rows, cache.column = None, column + 1
        for layer, (keys, values) in before.items():
            cache.keys[layer][rows, :, column], cache.values[layer][rows, :, column] = keys, values
        return logits[:, -1].float()

    def repeat(self, times: int) -> None:
        """Go on with ``times`` copies of every row, next to each other: several samples of one prompt."""
        self.slots = self.slots.repeat_interleave(times)
        self._pack()

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Go on with these rows only, in this order.

        The others are dropped from memory when a quarter of the batch has ended, so that the cache is seldom copied.
        """
        self.slots = self.slots[rows]
        if len(self.slots) <= 0.75 * len(self.valid):
            self._pack()

    def _pack(self) -> None:
        self.cache.keep(self.slots)
        self.valid, self.positions = self.valid[self.slots], self.positions[self.slots]
        self.slots = torch.arange(len(self.slots), device=self.slots.device)

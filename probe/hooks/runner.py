"""A batch of sequences under way in one model: left padded, with a key/value cache that is written in place.

Both models of a pair decode through this, steered or not, and so do plain rollouts: a step runs the new column once,
hands out the residual stream where it was asked to read, and can be run again above a site with a shift for some rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.hooks.attach import attach
from probe.hooks.row_cache import RowCache
from probe.hooks.upper import UpperLayers, causal_masks
from probe.models import Model, Site


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
        self.ids = torch.full((len(prompts), width), model.pad_id)
        valid = torch.ones(len(prompts), width + new_tokens, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            self.ids[row, width - len(prompt) :] = torch.tensor(prompt)
            valid[row, : width - len(prompt)] = False
        self.ids = self.ids.to(model.device)
        self.cache = RowCache(valid.to(model.device))
        self.positions = self.cache.valid.long().cumsum(1).sub(1).clamp_(min=0)
        self.slots = torch.arange(len(prompts), device=model.device)
        """Where each row that is still under way lies in the cache."""

    @torch.no_grad()
    def prefill(self) -> Step:
        """Run the prompts."""
        return self._run(self.ids)

    @torch.no_grad()
    def step(self, tokens: Int[Tensor, " rows"]) -> Step:
        """Run one more token in every row."""
        ids = torch.full((len(self.positions), 1), self.model.pad_id, device=self.model.device)
        ids[self.slots, 0] = tokens
        return self._run(ids)

    def _run(self, ids: Tensor) -> Step:
        start, end = self.cache.column, self.cache.column + ids.shape[1]
        resid: dict[int, Tensor] = {}

        def reader(layer: int) -> Callable[[Tensor], None]:
            def read(hidden: Tensor) -> None:
                resid[layer] = hidden[:, -1]

            return read

        detach = [attach(self.model.hf, Site("resid_post", layer), reader(layer)) for layer in self.read]
        try:
            out = self.model.hf(
                input_ids=ids,
                attention_mask=causal_masks(self.model, self.cache.valid[:, :end], ids.shape[1]),
                position_ids=self.positions[:, start:end],
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        finally:
            for off in detach:
                off()
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
                attention_mask=causal_masks(self.model, cache.valid[rows, : column + 1], 1),
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
        self.cache.origin = torch.arange(len(self.slots), device=self.slots.device)
        self.cache.begun = len(self.slots)

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Go on with these rows only, in this order.

        The others are dropped from memory when a quarter of the batch has ended, so that the cache is seldom copied.
        """
        self.slots = self.slots[rows]
        if len(self.slots) <= 0.75 * len(self.positions):
            self._pack()
            return
        ended = torch.ones(len(self.positions), dtype=torch.bool, device=self.slots.device)
        ended[self.slots] = False
        self.cache.valid[ended, self.cache.column :] = False

    def _pack(self) -> None:
        self.cache.keep(self.slots)
        self.positions = self.positions[self.slots]
        self.slots = torch.arange(len(self.slots), device=self.slots.device)

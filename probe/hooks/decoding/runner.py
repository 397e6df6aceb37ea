"""A batch that one model decodes: left padded, with a key/value cache that is written in place.

Plain rollouts and hybrids, steered or not, decode through this. A step runs the new column once, returns the residual
stream at the layers read, and can be run again above a site with a shift for some rows. Rows that end can be removed
and replaced.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.errors import ProbeError
from probe.hooks.attach import attacher
from probe.hooks.decoding.row_cache import RowCache
from probe.hooks.passes import followed
from probe.hooks.upper import UpperLayers, causal_masks
from probe.models import Model, Site, check_frequencies


@dataclass(frozen=True)
class Step:
    """The output of one pass at the newest column: ``logits`` and, for each layer read, ``resid_post``."""

    logits: Float[Tensor, "rows vocab"]
    resid: dict[int, Float[Tensor, "rows d_model"]]

    def __getitem__(self, rows: Int[Tensor, " some"]) -> "Step":
        """The step of some rows."""
        return Step(self.logits[rows], {layer: state[rows] for layer, state in self.resid.items()})

    def __add__(self, other: "Step") -> "Step":
        """The rows of this step, followed by those of another."""
        resid = {layer: torch.cat([state, other.resid[layer]]) for layer, state in self.resid.items()}
        return Step(torch.cat([self.logits, other.logits]), resid)

    def on(self, device: torch.device, vocab: int) -> "Step":
        """Move the step to a device.

        Args:
            device: where to.
            vocab: the number of logits that are kept, the first ones.
        """
        resid = {layer: state.to(device) for layer, state in self.resid.items()}
        return Step(self.logits[:, :vocab].to(device), resid)


def check_prompts(model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Refuse prompts that a model cannot continue, before any is run.

    Args:
        prompts: token ids of each prompt.
        max_new_tokens: the maximum number of tokens after each prompt.

    Raises:
        ProbeError: if a prompt is empty, an id is unknown to the model, a prompt and its new tokens need more positions
            than the model has, or there are to be no new tokens.
    """
    if max_new_tokens < 1:
        raise ProbeError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    if not all(map(len, prompts)):
        empty = next(i for i, prompt in enumerate(prompts) if not len(prompt))
        raise ProbeError(f"prompt {empty} for {model.name} has no token; every prompt needs at least one")
    model.check_ids(prompts, max_new_tokens=max_new_tokens)


class Runner:
    """Decodes rows token by token.

    Args:
        prompts: token ids, one non-empty list for each row.
        max_new_tokens: the maximum number of columns after each prompt.
        read: 0-based layers whose ``resid_post`` each step returns.
        steer: the layer above which :meth:`rerun` runs; it is read too.
        remember: keep the residual stream at ``steer`` of every column, for :meth:`rerun_window`.

    Raises:
        ProbeError: as :func:`check_prompts`.
        NotApplicable: if a row may become so long that the model's frequencies depend on the length.
    """

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        read: Sequence[int] = (),
        steer: int | None = None,
        remember: bool = False,
    ) -> None:
        check_prompts(model, prompts, max_new_tokens)
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.steer = steer
        layers = {*read} if steer is None else {*read, steer}
        self.sites = {layer: attacher(model.hf, Site("resid_post", layer)) for layer in layers}
        self.upper = None if steer is None else UpperLayers(model, steer)
        self.ids, real = self._padded(prompts)
        self.cache = RowCache(torch.nn.functional.pad(real, (0, max_new_tokens), value=True))
        self.positions = self._counted()
        self.past: list[Tensor] | None = [] if remember else None
        """The residual stream from column ``cache.first`` on, in pieces."""
        self.slots = torch.arange(len(prompts), device=model.device)
        """The row of the cache that holds each active row."""

    def _padded(self, prompts: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "row pos"], Bool[Tensor, "row pos"]]:
        width = max(len(prompt) for prompt in prompts)
        check_frequencies(self.model.hf, width + max(self.max_new_tokens - 1, 0))  # the last token is never run
        ids = torch.full((len(prompts), width), self.model.pad_id)
        real = torch.zeros(len(prompts), width, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            real[row, width - len(prompt) :] = True
        return ids.to(self.model.device), real.to(self.model.device)

    def _counted(self) -> Int[Tensor, "row capacity"]:
        return self.cache.valid.long().cumsum(1).sub(1).clamp_(min=0)

    @torch.no_grad()
    def prefill(self) -> Step:
        """Run the prompts."""
        return self._run(self.ids)[self.slots]

    @torch.no_grad()
    def step(self, tokens: Int[Tensor, " rows"]) -> Step:
        """Run one more token in every row.

        Args:
            tokens: the token of each row.
        """
        ids = torch.full((len(self.positions), 1), self.model.pad_id, device=self.model.device)
        ids[self.slots, 0] = tokens
        return self._run(ids)[self.slots]

    @property
    def may_admit(self) -> bool:
        """Whether rows can be added now; they cannot while an open capture or edit depends on tokens."""
        return not followed(self.model.hf)

    @torch.no_grad()
    def admit(self, prompts: Sequence[Sequence[int]]) -> Step:
        """Add rows in the slots of rows that have ended, and run their prompts.

        Args:
            prompts: token ids, one non-empty list for each new row.

        Returns:
            The step of the new rows, which come after the active ones.

        Raises:
            RuntimeError: if there are too few free slots, or an open capture or edit depends on tokens.
        """
        cache, taken = self.cache, set(self.slots.tolist())
        places = [place for place in range(len(self.positions)) if place not in taken][: len(prompts)]
        if len(places) < len(prompts) or not self.may_admit:
            raise RuntimeError(f"{len(prompts)} rows cannot be added: {len(places)} slots are free, or a block is open")
        ids, real = self._padded(prompts)
        width, rows = ids.shape[1], torch.tensor(places, device=self.model.device)
        self._trim()
        if width > cache.column or cache.column + self.max_new_tokens > cache.valid.shape[1]:
            start = max(0, width - (cache.column - cache.first))
            # Twice the room that is needed, so that the cache is copied once in many admissions.
            self._move(start, start + cache.column - cache.first + 2 * self.max_new_tokens)
        cache.valid[rows, : cache.column - width] = False
        cache.valid[rows, cache.column - width : cache.column] = real
        cache.valid[rows, cache.column :] = True
        cache.first = min(cache.first, cache.column - width)
        cache.origin[rows] = torch.arange(cache.begun, cache.begun + len(rows), device=rows.device)
        cache.begun += len(rows)
        self.positions = self._counted()
        self.slots = torch.cat([self.slots, rows])
        cache.rows, cache.apart, cache.column = rows, True, cache.column - width
        try:
            return self._run(ids)
        finally:
            cache.rows, cache.apart = None, False

    def _run(self, ids: Tensor) -> Step:
        cache, start, end = self.cache, self.cache.column, self.cache.column + ids.shape[1]
        first = start if cache.apart else cache.first
        rows = slice(None) if cache.rows is None else cache.rows
        resid: dict[int, Tensor] = {}
        whole: list[Tensor] = []

        def reader(layer: int) -> Callable[[Tensor], None]:
            def read(hidden: Tensor) -> None:
                resid[layer] = hidden[:, -1]
                if layer == self.steer and self.past is not None:
                    whole.append(hidden)

            return read

        detach = [attach(reader(layer), False) for layer, attach in self.sites.items()]
        try:
            out = self.model.hf(
                input_ids=ids,
                attention_mask=causal_masks(self.model, cache.valid[rows, first:end], ids.shape[1]),
                position_ids=self.positions[rows, start:end],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        finally:
            for off in detach:
                off()
        cache.column = end
        if self.past is not None:
            self._note(whole[0], start)
        return Step(out.logits[:, -1].float(), resid)

    def _note(self, hidden: Tensor, start: int) -> None:
        """Keep the residual stream of the columns that were run, in the layout of the cache."""
        assert self.past is not None
        if self.cache.rows is None:
            self.past.append(hidden)
            return
        whole = self._remembered()
        whole = torch.nn.functional.pad(whole, (0, 0, self.cache.column - self.cache.first - whole.shape[1], 0))
        whole[self.cache.rows, start - self.cache.first :] = hidden
        self.past = [whole]

    def _remembered(self) -> Float[Tensor, "rows columns d_model"]:
        assert self.past is not None
        if len(self.past) > 1:
            self.past = [torch.cat(self.past, 1)]
        return self.past[0]

    @torch.no_grad()
    def rerun(
        self,
        hidden: Float[Tensor, "some d_model"],
        rows: Int[Tensor, " some"],
        *,
        persistent: bool = True,
    ) -> Float[Tensor, "some vocab"]:
        """Run the newest column of some rows again above ``resid_post.steer``.

        Args:
            hidden: the shifted residual stream of these rows.
            rows: the rows; unless the shift is persistent, a row may be repeated.
            persistent: keep the shifted keys and values in the cache, as a full pass with the same shift would;
                otherwise the shift changes only the logits returned.
        """
        return self._again(hidden[:, None], self.slots[rows], persistent)

    @torch.no_grad()
    def rerun_window(
        self, shift: Float[Tensor, "some d_model"], rows: Int[Tensor, " some"], window: int | None
    ) -> Float[Tensor, "some vocab"]:
        """Run the last columns of some rows again with one shift added to each; the cache is not changed.

        Args:
            shift: the vector added at ``resid_post.steer``, one for each of ``rows``.
            rows: the rows; a row may be repeated.
            window: the number of last columns that are shifted; None for all, the prompt included.
        """
        slots, cache = self.slots[rows], self.cache
        width = cache.column - cache.first if window is None else min(window, cache.column - cache.first)
        start = cache.column - width
        whole = self._remembered()
        return self._again(whole[slots, whole.shape[1] - width :] + shift[:, None], slots, False, start)

    def _again(self, hidden: Tensor, slots: Tensor, persistent: bool, start: int | None = None) -> Tensor:
        if self.upper is None:
            raise RuntimeError("this Runner was made without a layer to steer")
        cache, end = self.cache, self.cache.column
        start = end - 1 if start is None else start
        cache.rows, cache.kept, cache.column = slots, persistent, start
        try:
            logits = self.upper(
                hidden,
                attention_mask=causal_masks(self.model, cache.valid[slots, cache.first : end], end - start),
                position_ids=self.positions[slots, start:end],
                cache=cache,
                logits_to_keep=1,
            )
        finally:
            cache.rows, cache.kept, cache.column = None, True, end
        return logits[:, -1].float()

    def repeat(self, times: int) -> None:
        """Repeat every row, copies next to each other, to sample a prompt several times."""
        self.slots = self.slots.repeat_interleave(times)
        self._pack()
        self.cache.origin = torch.arange(len(self.slots), device=self.slots.device)
        self.cache.begun = len(self.slots)

    def keep(self, rows: Int[Tensor, " kept"], *, hold: bool = False) -> None:
        """Keep only some rows, in this order.

        The others are dropped from memory once a quarter of the batch has ended, so that the cache is seldom copied.

        Args:
            hold: keep the slots of the others for :meth:`admit`.
        """
        self.slots = self.slots[rows]
        if not hold and len(self.slots) <= 0.75 * len(self.positions):
            self._pack()
            return
        ended = torch.ones(len(self.positions), dtype=torch.bool, device=self.slots.device)
        ended[self.slots] = False
        self.cache.valid[ended, self.cache.column :] = False

    def _pack(self) -> None:
        self.cache.keep(self.slots)
        self.positions = self.positions[self.slots]
        if self.past is not None:
            self.past = [self._remembered()[self.slots]]
        self.slots = torch.arange(len(self.slots), device=self.slots.device)
        self._trim()

    def _trim(self) -> None:
        """Ignore leading columns in which no active row has a token."""
        cache = self.cache
        if not len(self.slots):
            return
        seen = cache.valid[self.slots, : cache.column].any(0)
        first = int(seen.long().argmax())
        if self.past is not None and first > cache.first:
            self.past = [self._remembered()[:, first - cache.first :]]
        cache.first = max(first, cache.first)

    def _move(self, start: int, capacity: int) -> None:
        self.cache.move(start, capacity)
        self.positions = self._counted()

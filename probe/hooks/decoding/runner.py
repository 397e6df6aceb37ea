"""A batch that one model decodes: left padded, with a key/value cache that grows in place.

Plain rollouts and hybrids, steered or not, decode through this. A step runs the new column once, returns the residual
stream at the layers read, and can be run again above a site with a shift for some rows. Rows that end can be removed
and replaced.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from probe.errors import NotApplicable, ProbeError
from probe.hooks.attach import attacher
from probe.hooks.decoding.room import prompt_tokens, rows_of_pass
from probe.hooks.decoding.row_cache import RowCache, with_room
from probe.hooks.passes import followed
from probe.hooks.upper import UpperLayers, causal_masks
from probe.models import Model, Site, check_frequencies, fitting


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
        self.prompts = prompts
        self.remember = remember
        self._room = prompt_tokens(model)
        self.slots = torch.arange(len(prompts), device=model.device)
        """The row of the cache that holds each active row."""
        self.cache = RowCache(len(prompts), model.device, again=steer)
        self._most: int | None = self._width(prompts) + max_new_tokens
        """The number of columns that are ever needed; None after rows were added, because others may follow."""

    def _width(self, prompts: Sequence[Sequence[int]]) -> int:
        width = max(map(len, prompts))
        check_frequencies(self.model.hf, width + self.max_new_tokens - 1)  # the last token is never run
        return width

    @torch.no_grad()
    def prefill(self) -> Step:
        """Run the prompts."""
        width = self._width(self.prompts)
        self.cache.reserve(width, most=self._most, stay=True)
        self.cache.column = width
        return self._begin(self.prompts, self.slots)

    @torch.no_grad()
    def step(self, tokens: Int[Tensor, " rows"]) -> Step:
        """Run one more token in every row.

        Args:
            tokens: the token of each row.
        """
        self.cache.reserve(1, most=self._most, stay=not self.may_admit)
        ids = torch.full((len(self.cache.begin), 1), self.model.pad_id, device=self.model.device)
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
        places = [place for place in range(len(cache.begin)) if place not in taken][: len(prompts)]
        if len(places) < len(prompts) or not self.may_admit:
            raise RuntimeError(f"{len(prompts)} rows cannot be added: {len(places)} slots are free, or a block is open")
        width, rows = self._width(prompts), torch.tensor(places, device=self.model.device)
        self._most = None
        cache.trim()
        if width > cache.column:
            cache.move(width - cache.column + cache.first, with_room(width))
        cache.first = min(cache.first, cache.column - width)
        self.slots = torch.cat([self.slots, rows])
        return self._begin(prompts, rows)

    def _begin(self, prompts: Sequence[Sequence[int]], rows: Int[Tensor, " some"]) -> Step:
        """Run prompts in these rows of the cache, so that they end in the newest column; equal ones are run once."""
        cache = self.cache
        cache.arrive(rows, torch.tensor([len(prompt) for prompt in prompts], device=rows.device))
        if not self.may_admit:  # what looks on expects every row, all in one pass
            if self.steer is not None and self.model.state_layers:
                raise NotApplicable(
                    f"{self.model.name} has linear attention, so steered decoding runs a part of each prompt twice; "
                    "close the capture, or the edit with tokens, first"
                )
            return self._run_apart(prompts, None)
        number: dict[tuple[int, ...], int] = {}
        first, same = [], []
        for at, prompt in enumerate(prompts):
            same.append(number.setdefault(tuple(prompt), len(number)))
            if same[-1] == len(first):
                first.append(at)
        step = None
        for group in fitting(first, lambda at: len(prompts[at]), self._room):
            some = [prompts[at] for at in group]
            taken = self._run_apart(some, None if len(group) == len(cache.begin) else rows[group])
            step = taken if step is None else step + taken
        assert step is not None
        if len(first) == len(prompts):
            return step
        again = torch.tensor(same, device=rows.device)
        cache.copy(rows[torch.tensor(first, device=rows.device)[again]], rows, max(map(len, prompts)))
        return step[again]

    def _run_apart(self, prompts: Sequence[Sequence[int]], rows: Tensor | None) -> Step:
        """Run prompts that end in the newest column, each of which attends only to itself."""
        cache, width = self.cache, max(map(len, prompts))
        ids = torch.full((len(prompts), width), self.model.pad_id)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
        cache.rows, cache.apart, cache.column = rows, True, cache.column - width
        try:
            return self._run(ids.to(self.model.device))
        finally:
            cache.rows, cache.apart = None, False

    def _run(self, ids: Tensor) -> Step:
        cache, start, end = self.cache, self.cache.column, self.cache.column + ids.shape[1]
        first = start if cache.apart else cache.first
        resid: dict[int, Tensor] = {}
        prompt: list[Tensor] = []

        def reader(layer: int) -> Callable[[Tensor], None]:
            def read(hidden: Tensor) -> None:
                # A view of the last column would hold the whole prompt.
                resid[layer] = hidden[:, -1].clone() if hidden.shape[1] > 1 else hidden[:, -1]
                if layer == self.steer and self.remember:
                    cache.write("resid", layer, hidden[:, None])
                if layer == self.steer and cache.apart and self.model.state_layers:
                    prompt.append(hidden[:, :-1])

            return read

        detach = [attach(reader(layer), False) for layer, attach in self.sites.items()]
        try:
            out = self.model.hf(
                input_ids=ids,
                attention_mask=causal_masks(self.model, cache.real(first, end), ids.shape[1]),
                position_ids=cache.positions(start, end),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        finally:
            for off in detach:
                off()
        cache.settle()
        if prompt and ids.shape[1] > 1:
            self._run_before(prompt.pop())
        cache.column = end
        return Step(out.logits[:, -1].float(), resid)

    def _run_before(self, hidden: Float[Tensor, "some before d_model"]) -> None:
        """Run all columns of the prompts but the newest above ``steer``, for the states from which it is run again."""
        cache, start, end = self.cache, self.cache.column, self.cache.column + hidden.shape[1]
        assert self.upper is not None
        cache.kept = False
        try:
            self.upper.states(
                hidden,
                attention_mask=causal_masks(self.model, cache.real(start, end), end - start),
                position_ids=cache.positions(start, end),
                cache=cache,
            )
        finally:
            cache.kept = True

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
        held = cache.column - cache.first
        shifted = held if window is None else min(window, held)
        # Blocks with a state cannot begin in the middle of a row.
        width = held if self.model.state_layers else shifted
        start = cache.column - width
        assert self.steer is not None
        past = cache.stores["resid", self.steer][:, 0, start : cache.column]
        size = rows_of_pass(self.model, width)
        parts = zip(slots.split(size), shift[:, None].split(size), strict=True)
        pad = (0, 0, width - shifted, 0)
        return torch.cat(
            [
                self._again(past[some] + F.pad(added.expand(-1, shifted, -1), pad), some, False, start)
                for some, added in parts
            ]
        )

    def _again(self, hidden: Tensor, slots: Tensor, persistent: bool, start: int | None = None) -> Tensor:
        if self.upper is None:
            raise RuntimeError("this Runner was made without a layer to steer")
        cache, end = self.cache, self.cache.column
        start = end - 1 if start is None else start
        cache.rows, cache.kept, cache.column = slots, persistent, start
        try:
            logits = self.upper(
                hidden,
                attention_mask=causal_masks(self.model, cache.real(cache.first, end), end - start),
                position_ids=cache.positions(start, end),
                cache=cache,
                logits_to_keep=1,
            )
            cache.settle()
        finally:
            cache.rows, cache.kept, cache.column = None, True, end
        return logits[:, -1].float()

    def keep(self, rows: Int[Tensor, " kept"], *, hold: bool = False) -> None:
        """Keep only some rows, in this order.

        The others are dropped from memory once a quarter of the batch has ended, so that the cache is seldom copied.

        Args:
            hold: keep the slots of the others for :meth:`admit`.
        """
        self.slots = self.slots[rows]
        if hold or len(self.slots) > 0.75 * len(self.cache.begin):
            self.cache.leave(self.slots)
            return
        self.cache.keep(self.slots)
        self.slots = torch.arange(len(self.slots), device=self.slots.device)
        self.cache.trim()

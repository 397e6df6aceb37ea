"""Where in the text each forward pass is: which columns are tokens, at which position, of the prompt or generated.

One pass may be a whole text, a prompt, a chunk of a prompt, or one more token of every row on top of a key/value cache;
padded on either side. All of them are told here in the same terms, so that what reads and writes activations need not
care how the model is run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel


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


@dataclass(frozen=True)
class Pass:
    """Where one forward pass is.

    Attributes:
        ids: the tokens it runs; None if it was given embeddings.
        real: False at padding.
        position: of each token in its row's text, counted from 0 without padding. Meaningless at padding.
        generated: which tokens follow the prompt.
        n_prompt: how many tokens each row's prompt has.
        rows: which row of the batch, as it began, each row is (rows that have ended may be gone).
        first: whether it begins a text rather than going on with one.
    """

    ids: Int[Tensor, "batch width"] | None
    real: Bool[Tensor, "batch width"]
    position: Int[Tensor, "batch width"]
    generated: Bool[Tensor, "batch width"]
    n_prompt: Int[Tensor, " batch"]
    rows: Int[Tensor, " batch"]
    first: bool

    @property
    def step(self) -> Int[Tensor, "batch width"]:
        """How many generated tokens come before each; negative in the prompt, −1 at its last token."""
        return self.position - self.n_prompt[:, None]


class Passes:
    """Follows the forward passes of one model; ``now`` is the one under way.

    Args:
        prompt_width: how many columns are the prompt. Unless given, what ``generate`` is handed or, in other calls, the
            first pass on a fresh cache.
    """

    def __init__(self, prompt_width: int | None = None) -> None:
        self._told = prompt_width
        self._handed: tuple[int, Tensor | None] | None = None
        self._width = 0
        self._call: tuple[Tensor | None, Tensor, dict[str, Any], int] | None = None
        self._now: Pass | None = None

    @property
    def generating(self) -> bool:
        """Whether a call to ``generate`` is under way."""
        return self._handed is not None

    @property
    def begins(self) -> bool:
        """Whether the pass under way begins a text."""
        return self._call is None or self._call[3] == 0

    @property
    def now(self) -> Pass:
        """The pass under way."""
        if self._call is None:
            raise RuntimeError("no forward pass is under way")
        if self._now is None:
            self._now = self._locate(*self._call)
        return self._now

    @contextmanager
    def follow(self, hf: PreTrainedModel) -> Iterator["Passes"]:
        """Follow the passes of this model inside the block."""

        def begin(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            ids = args[0] if args else kwargs.get("input_ids")
            states = kwargs["inputs_embeds"] if ids is None else ids
            cache = kwargs.get("past_key_values")
            past = 0 if cache is None else int(cache.get_seq_length())
            if past == 0:
                self._width = self._told or (self._handed[0] if self._handed else states.shape[1])
            self._call, self._now = (ids, states, kwargs, past), None

        def generating(generate: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(generate)
            def run(*args: Any, **kwargs: Any) -> Any:
                given = [args[0] if args else None, *(kwargs.get(k) for k in ("inputs", "input_ids", "inputs_embeds"))]
                prompt = next((each for each in given if isinstance(each, Tensor)), None)
                self._handed = None if prompt is None else (prompt.shape[1], kwargs.get("attention_mask"))
                try:
                    return generate(*args, **kwargs)
                finally:
                    self._handed = None

            return run

        handle = hf.base_model.register_forward_pre_hook(begin, with_kwargs=True)
        with replaced(hf, "generate", generating):
            try:
                yield self
            finally:
                handle.remove()

    def _locate(self, ids: Tensor | None, states: Tensor, kwargs: dict[str, Any], past: int) -> Pass:
        batch, width = states.shape[:2]
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        rows = torch.arange(batch, device=states.device)
        if isinstance(cache, RowCache):
            some = slice(None) if cache.rows is None else cache.rows
            rows, seen = cache.origin[some], cache.valid[some, : past + width]
        elif isinstance(mask, Tensor) and mask.ndim == 2:
            seen = mask[:, : past + width].bool()
        else:
            seen = torch.ones(batch, past + width, dtype=torch.bool, device=states.device)
        position = seen.long().cumsum(1) - 1
        column = torch.arange(past, past + width, device=states.device)
        return Pass(
            ids=ids,
            real=seen[:, past:],
            position=position[:, past:],
            generated=(column >= self._width).expand(batch, -1),
            n_prompt=self._prompt_lengths(seen),
            rows=rows,
            first=past == 0,
        )

    def _prompt_lengths(self, seen: Bool[Tensor, "batch columns"]) -> Int[Tensor, " batch"]:
        """Tokens of each prompt, of which this pass may have reached a part only."""
        ahead = self._width - seen.shape[1]
        if ahead <= 0:
            return seen[:, : self._width].sum(1)
        handed = self._handed[1] if self._handed else None
        if handed is not None:
            return handed[:, : self._width].sum(1).repeat_interleave(len(seen) // len(handed)).to(seen.device)
        return seen.sum(1) + ahead


@contextmanager
def replaced(module: nn.Module, name: str, by: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Exchange a method of one module inside the block, and take it back exactly."""
    own = module.__dict__.get(name)
    setattr(module, name, by(getattr(module, name)))
    try:
        yield
    finally:
        if own is None:
            delattr(module, name)
        else:
            setattr(module, name, own)

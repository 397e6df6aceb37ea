"""Locate each forward pass in its text: which columns are tokens, at which positions, of the prompt or generated.

A pass may be a whole text, a prompt, a chunk of a prompt, or one more token of every row on a key/value cache, padded
on either side. All are described in the same terms, so that captures and edits do not depend on how the model is run.
"""

import inspect
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from probe.errors import ProbeError
from probe.hooks.decoding.row_cache import RowCache
from probe.models import OPEN_BLOCK, Site, check_frequencies, check_id, check_length, input_device


@dataclass(frozen=True)
class Pass:
    """One forward pass, located in the text.

    Attributes:
        ids: the tokens it runs; None if the model was called with embeddings.
        real: False at padding, and in rows that have ended.
        position: the position of each token in its row, counted from 0 without padding; meaningless at padding.
        prompt: the number of prompt tokens of each row; None if unknown.
        generated: True for tokens after the prompt; None if unknown.
        rows: the index of each row in the batch as it began (rows that have ended may be gone).
        begun: the number of rows the batch began with.
        past: the number of columns that ran before.
        prompt_width: the number of columns of the prompt; None if unknown.
    """

    ids: Int[Tensor, "batch width"] | None
    real: Bool[Tensor, "batch width"]
    position: Int[Tensor, "batch width"]
    prompt: Int[Tensor, " batch"] | None
    generated: Bool[Tensor, "batch width"] | None
    rows: Int[Tensor, " batch"]
    begun: int
    past: int = 0
    prompt_width: int | None = None

    @property
    def width(self) -> int:
        """The number of columns it runs."""
        return self.real.shape[1]

    @property
    def step(self) -> Int[Tensor, "batch width"]:
        """The number of generated tokens before each token; negative in the prompt, −1 at its last token.

        Raises:
            ProbeError: if the end of the prompt is unknown.
        """
        return self.position - self._known(self.prompt)[:, None]

    @property
    def after_prompt(self) -> Bool[Tensor, "batch width"]:
        """True for tokens after the prompt.

        Raises:
            ProbeError: if the end of the prompt is unknown.
        """
        return self._known(self.generated)

    def _known(self, what: Tensor | None) -> Tensor:
        if what is None:
            raise ProbeError(
                f"the cache already holds {self.past} columns, so the end of the prompt is unknown; "
                "give the number of columns of the prompt: prompt_width=..."
            )
        return what


@runtime_checkable
class Listener(Protocol):
    """An open capture or edit."""

    selects: bool
    """Whether it depends on which columns are tokens."""
    reads: bool
    """Whether it records states."""
    may_stop: bool
    """Whether the pass may end once it has seen all its sites."""

    def begin(self, past: int) -> None:
        """Called when a pass begins, after ``past`` columns that ran before."""
        ...

    def waits(self) -> bool:
        """Whether one of its sites has not been reached in this pass."""
        ...


class Enough(Exception):
    """Raised to end a pass when no open block needs anything above."""


class Stopped:
    """The output of a pass that ended early; any use of it raises an error that says so."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ProbeError(f"the pass ended at the deepest captured site, so it has no {name}; use capture(stop=False)")

    def __getitem__(self, key: object) -> Any:
        raise ProbeError(f"the pass ended at the deepest captured site, so there is no [{key!r}]; use stop=False")

    def __repr__(self) -> str:
        return "Stopped(the pass ended at the deepest captured site)"


class Passes:
    """Follows the forward passes of one model while captures or edits are open."""

    def __init__(self, hf: PreTrainedModel) -> None:
        self.hf = hf
        self.listeners: list[Listener] = []
        self.quiet = False
        """Whether the listeners take no part in the passes that run now."""
        self._undo: ExitStack | None = None
        self._running = self._cutting = False
        self._generating = False
        self._handed: tuple[int, Tensor | None] | None = None
        self._stops: Tensor | None = None
        self._ended: Tensor | None = None
        self._first_width: int | None = None
        self._call: tuple[dict[str, Any], Tensor, int] | None = None
        self._seen: dict[int | None, Pass] = {}

    def now(self, prompt_width: int | None = None) -> Pass:
        """The current pass.

        Args:
            prompt_width: the number of columns of the prompt. None: the input of ``generate`` or, in other calls, the
                first pass on an empty cache.

        Raises:
            ProbeError: if no pass is running, or its tokens cannot be distinguished from padding.
        """
        if self._call is None:
            raise ProbeError(
                "tokens can be selected only while the model or its trunk runs; call one of them in the block"
            )
        if prompt_width not in self._seen:
            self._seen[prompt_width] = self._locate(prompt_width)
        return self._seen[prompt_width]

    @property
    def some_rows(self) -> Int[Tensor, " some"] | None:
        """The rows that the current pass runs, numbered as the batch began, if it runs only some; otherwise None."""
        cache = None if self._call is None else self._call[0].get("past_key_values")
        if isinstance(cache, RowCache) and cache.rows is not None:
            return cache.origin[cache.rows]
        return None

    def reached(self) -> None:
        """Note that a listener has seen a site.

        Raises:
            Enough: if nothing above needs to run.
        """
        stops = self._cutting and any(each.may_stop for each in self.listeners)
        if stops and all(each.may_stop and not each.waits() for each in self.listeners):
            raise Enough

    @contextmanager
    def open(self, listener: Listener) -> Iterator["Passes"]:
        """Inform a listener of the passes inside the block."""
        if not self.listeners:
            self._undo = self._attach()
            setattr(self.hf, _ATTRIBUTE, self)
        self.listeners.append(listener)
        try:
            yield self
        finally:
            self.listeners.remove(listener)
            if not self.listeners and self._undo is not None:
                self._undo.close()
                self._call, self._seen = None, {}  # they hold the caller's cache
                delattr(self.hf, _ATTRIBUTE)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Run passes of one's own inside the block, of which no listener learns."""
        before, self.quiet = self.quiet, True
        try:
            yield
        finally:
            self.quiet = before

    def _attach(self) -> ExitStack:
        with ExitStack() as undo:  # all or nothing
            trunk = self.hf.base_model
            undo.callback(trunk.register_forward_pre_hook(self._begin, with_kwargs=True).remove)
            modules: tuple[nn.Module, ...] = (self.hf, trunk)
            for module in dict.fromkeys(modules):
                undo.callback(_replace(module, "forward", self._ending))
            if hasattr(self.hf, "generate"):
                undo.callback(_replace(self.hf, "generate", self._following))
            return undo.pop_all()

    def _ending(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a forward method so that the outermost call, of the model or of its trunk, ends on `Enough`."""
        signature = inspect.signature(forward)

        @wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            if self._running or self.quiet:
                return forward(*args, **kwargs)
            given = signature.bind_partial(*args, **kwargs).arguments if args else kwargs
            cached = given.get("past_key_values") is not None or given.get("use_cache")
            self._running, self._cutting = True, not (cached or self._generating)
            try:
                return forward(*args, **kwargs)
            except Enough:
                return Stopped()
            finally:
                self._running = self._cutting = False

        setattr(run, OPEN_BLOCK, True)
        return run

    def _following(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``generate`` to learn where the prompt ends and which tokens end a row."""

        @wraps(generate)
        def run(*args: Any, **kwargs: Any) -> Any:
            config = kwargs.get("generation_config") or self.hf.generation_config

            def setting(name: str) -> Any:
                return kwargs[name] if name in kwargs else getattr(config, name, None)

            if any(each.selects or each.reads for each in self.listeners):
                for name, least in (("num_beams", 1), ("assistant_model", None), ("prompt_lookup_num_tokens", None)):
                    if setting(name) not in (None, least):
                        raise ProbeError(f"generate with {name} runs tokens and discards them later; leave {name} out")
            given = [args[0] if args else None, *(kwargs.get(k) for k in ("inputs", "input_ids", "inputs_embeds"))]
            prompt = next((each for each in given if isinstance(each, Tensor)), None)
            self._handed = None if prompt is None else (prompt.shape[1], kwargs.get("attention_mask"))
            ends = setting("eos_token_id")
            self._stops = None if ends is None else torch.as_tensor(ends, device=input_device(self.hf)).reshape(-1)
            self._generating, self._ended = True, None
            try:
                return generate(*args, **kwargs)
            finally:
                self._generating, self._handed, self._ended = False, None, None

        return run

    def _begin(self, trunk: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if self.quiet:
            return
        if args:
            kwargs = kwargs | inspect.signature(trunk.forward).bind_partial(*args).arguments
        ids = kwargs.get("input_ids")
        states = kwargs.get("inputs_embeds") if ids is None else ids
        if states is None or (self._generating and kwargs.get("cache_params") is not None):
            raise ProbeError(f"the passes of {type(self.hf).__name__} cannot be followed: it has no key/value cache")
        cache = kwargs.get("past_key_values")
        past = 0 if cache is None else int(cache.get_seq_length())
        self._check(ids, kwargs.get("position_ids"), past + states.shape[1])
        if not isinstance(cache, RowCache):  # those have been checked, row by row
            check_frequencies(self.hf, past + states.shape[1])
        if past == 0:
            self._first_width = states.shape[1]
        self._call, self._seen = (kwargs, states, past), {}
        if self._generating and self._stops is not None and ids is not None:
            self._note_ends(ids, past, self._stops)
        for listener in self.listeners:
            listener.begin(past)

    def _check(self, ids: Tensor | None, positions: Tensor | None, columns: int) -> None:
        """Refuse ids and positions that the model's tables lack; values on an accelerator are not waited for."""
        name = type(self.hf).__name__
        if ids is not None and ids.device.type == "cpu" and ids.numel():
            for extreme in ids.aminmax():
                check_id(self.hf, int(extreme), name)
        if positions is None:
            check_length(self.hf, columns, name)
        elif positions.device.type == "cpu" and positions.numel():
            check_length(self.hf, int(positions.max()) + 1, name)

    def _note_ends(self, ids: Tensor, past: int, stops: Tensor) -> None:
        """Mark rows that have ended; ``generate`` keeps running them, but what they are fed is no text."""
        if not any(each.selects for each in self.listeners):
            return
        if self._ended is None:
            self._ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        if self._handed is not None and past >= self._handed[0]:
            self._ended = self._ended | torch.isin(ids, stops).any(1)

    def _locate(self, told: int | None) -> Pass:
        assert self._call is not None
        kwargs, states, past = self._call
        batch, width = states.shape[:2]
        cache = kwargs.get("past_key_values")
        rows, begun = torch.arange(batch, device=states.device), batch
        if isinstance(cache, RowCache):
            some = slice(None) if cache.rows is None else cache.rows
            rows, begun, seen = cache.origin[some], cache.begun, cache.real(0, past + width)
        else:
            seen = self._columns(kwargs.get("attention_mask"), batch, past + width, states.device)
        prompt_width = told or (self._handed[0] if self._handed else self._first_width)
        generated = prompt = None
        if prompt_width is not None:
            column = torch.arange(past, past + width, device=states.device)
            generated = (column >= prompt_width).expand(batch, -1)
            prompt = self._prompt_lengths(seen, prompt_width)
        real = seen[:, past:] if self._ended is None else seen[:, past:] & ~self._ended[:, None]
        position = (seen.long().cumsum(1) - 1)[:, past:]
        return Pass(kwargs.get("input_ids"), real, position, prompt, generated, rows, begun, past, prompt_width)

    def _columns(self, mask: Any, batch: int, columns: int, device: torch.device) -> Bool[Tensor, "batch columns"]:
        """True for columns that are tokens, among those that have been run."""
        if not (isinstance(mask, Tensor) and mask.ndim == 2) and self._handed is not None:
            handed = self._handed[1]
            if handed is not None:  # generate has converted the mask for its cache
                mask = handed.repeat_interleave(batch // len(handed), 0).to(device)
            elif mask is not None:
                raise ProbeError("padding is unknown with this cache; give generate an attention_mask")
        if mask is None:
            return torch.ones(batch, columns, dtype=torch.bool, device=device)
        if not (isinstance(mask, Tensor) and mask.ndim == 2):
            raise ProbeError("this mask does not distinguish tokens from padding; give an attention_mask [batch, pos]")
        seen = mask[:, :columns].bool()
        return nn.functional.pad(seen, (0, columns - seen.shape[1]), value=True)

    def _prompt_lengths(self, seen: Bool[Tensor, "batch columns"], prompt_width: int) -> Int[Tensor, " batch"]:
        """The number of tokens of each prompt, of which this pass may have reached only a part."""
        ahead = prompt_width - seen.shape[1]
        if ahead <= 0:
            return seen[:, :prompt_width].sum(1)
        handed = self._handed[1] if self._handed else None
        if handed is not None:
            return handed[:, :prompt_width].sum(1).repeat_interleave(len(seen) // len(handed)).to(seen.device)
        return seen.sum(1) + ahead


_ATTRIBUTE = "_probe_passes"
"""Attribute of a model while a block is open: its `Passes`."""


def passes_of(hf: PreTrainedModel) -> Passes:
    """The `Passes` of a model, shared by all open blocks; new if none is open."""
    return getattr(hf, _ATTRIBUTE, None) or Passes(hf)


def followed(hf: PreTrainedModel) -> bool:
    """Whether an open capture or edit of a model records states or depends on its tokens."""
    return any(each.selects or each.reads for each in passes_of(hf).listeners)


def check_reached(sites: Iterable[Site], reached: Container[Site], block: str) -> None:
    """Check that every site of a block was reached.

    Args:
        block: ``capture`` or ``edit``, for the message.

    Raises:
        ProbeError: naming the sites that were not reached.
    """
    missing = [str(site) for site in sites if site not in reached]
    if missing:
        raise ProbeError(
            f"no forward pass reached {', '.join(missing)}; call the model inside the {block} block "
            "(a model compiled before it keeps no hooks)"
        )


def _replace(
    module: nn.Module, name: str, by: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[[], None]:
    """Replace a method of one module; returns a function that restores it exactly."""
    own = module.__dict__.get(name)
    setattr(module, name, by(getattr(module, name)))

    def restore() -> None:
        if own is None:
            delattr(module, name)
        else:
            setattr(module, name, own)

    return restore

"""Attach a function to a site: how modules take their input, return their output, and compute attention patterns."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers.utils.generic import ModelOutput

from probe.errors import ProbeError
from probe.hooks.attention import attention_weights, exchange_attention
from probe.models import Model, Place, Site, input_device, place


def as_hf(model: Model | nn.Module) -> PreTrainedModel:
    """Find the Hugging Face model inside a `Model`, a PEFT model or a compiled model.

    Args:
        model: a `Model` or a torch module.

    Raises:
        ProbeError: if there is none, or it is not decoder-only.
    """
    hf: Any = model.hf if isinstance(model, Model) else model
    if not isinstance(hf, PreTrainedModel) and hasattr(hf, "get_base_model"):
        hf = hf.get_base_model()
    hf = getattr(hf, "_orig_mod", hf)  # a compiled model
    if not isinstance(hf, PreTrainedModel) or hf.config.is_encoder_decoder:
        raise ProbeError(f"a {type(model).__name__} cannot be read; give a Model or a decoder-only Hugging Face model")
    return hf


Act = Callable[[Tensor], Tensor | None]
"""Called with the state at a site; returns a new state that replaces it, or None. Wherever the site is, the state is on
the device that the model's inputs go to, so that states of all sites, vectors and SAEs lie on one device."""


def attach(hf: PreTrainedModel, site: Site, act: Act, *, first: bool = False) -> Callable[[], None]:
    """Call ``act`` at a site in every pass.

    Args:
        first: call ``act`` before the hooks that are already there instead of after them.

    Returns:
        A function that removes the hook.
    """
    return attacher(hf, site)(act, first)


def attacher(hf: PreTrainedModel, site: Site) -> Callable[[Act, bool], Callable[[], None]]:
    """Look a site up once, for callers that attach to it at every token.

    Returns:
        A function of ``(act, first)`` that does what :func:`attach` does.
    """
    where = place(hf, site)
    module, home = hf.get_submodule(where.module), input_device(hf)

    def attach_here(act: Act, first: bool) -> Callable[[], None]:
        act = _at_home(act, home)
        if where.side == "pattern":
            return _attach_pattern(hf, module, act)
        return _hook(module, where, act, first, hf.get_submodule(where.block) if where.flat else None)

    return attach_here


def _at_home(act: Act, home: torch.device) -> Act:
    """Call ``act`` with the state on another device, and give back the device of the site what it returns."""

    def moved(state: Tensor) -> Tensor | None:
        new = act(state.to(home))
        return None if new is None else new.to(state.device)

    return moved


def _hook(module: nn.Module, where: Place, act: Act, first: bool, block: nn.Module | None) -> Callable[[], None]:
    rows: list[int] = []
    """The rows and positions of the pass, where the site has the tokens of all rows on one axis."""

    def exchange(whole: Tensor) -> Tensor | None:
        new = act(where.read(whole, rows))
        return None if new is None else where.write(whole, new, rows)

    def note_rows(_: nn.Module, args: tuple, kwargs: dict) -> None:
        rows[:] = tensor(args[0] if args else kwargs.get("hidden_states"), "input").shape[:2]

    def tensor(whole: Any, side: str) -> Tensor:
        if not isinstance(whole, Tensor):
            raise ProbeError(f"the {side} of {where.module} is no tensor; name another module, or its other side")
        return whole

    def on_input(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        # Most blocks are called with their state as the first argument or by this name, others with one argument.
        name = next((name for name in ("hidden_states", *kwargs) if isinstance(kwargs.get(name), Tensor)), "")
        new = exchange(tensor(args[0] if args else kwargs.get(name), "input"))
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, kwargs | {name: new})

    def on_output(_: nn.Module, __: tuple, output: Any) -> Any:
        if isinstance(output, ModelOutput):
            name = next(iter(output))
            new = exchange(tensor(output[name], "output"))
            return None if new is None else type(output)(**{**output, name: new})
        if not isinstance(output, tuple | list):
            return exchange(tensor(output, "output"))
        at = where.item
        new = exchange(tensor(output[at] if output else None, "output"))
        if new is None:
            return None
        made = (*output[:at], new, *output[at + 1 :])
        return type(output)(*made) if hasattr(output, "_fields") else type(output)(made)

    noting = None if block is None else block.register_forward_pre_hook(note_rows, with_kwargs=True)
    if where.side == "input":
        return module.register_forward_pre_hook(on_input, with_kwargs=True, prepend=first).remove
    hook = module.register_forward_hook(on_output, prepend=first)

    def remove() -> None:
        hook.remove()
        if noting is not None:
            noting.remove()

    return remove


_NAME = "probe"
"""Our attention in transformers' registry."""
_PATTERN_ACTS = "_probe_pattern_acts"
"""Attribute of an attention module while its pattern is attached to: what to call with the pattern."""
_OWN_ATTENTION = "_probe_own_attention"
"""Attribute of a model while patterns are attached to: what gives it its own attention back, and the number of
attachments."""


def _attach_pattern(hf: PreTrainedModel, module: nn.Module, act: Act) -> Callable[[], None]:
    """Compute attention step by step while a pattern is attached to, because fused attention never forms one."""
    restore, count = getattr(hf, _OWN_ATTENTION, (None, 0))
    setattr(hf, _OWN_ATTENTION, (restore or exchange_attention(hf, _NAME, _attend, eager_mask), count + 1))
    setattr(module, _PATTERN_ACTS, [*getattr(module, _PATTERN_ACTS, ()), act])

    def remove() -> None:
        left = list(getattr(module, _PATTERN_ACTS))
        left.remove(act)  # once: the same act may be attached twice
        restore, count = getattr(hf, _OWN_ATTENTION)
        if left:
            setattr(module, _PATTERN_ACTS, left)
        else:
            delattr(module, _PATTERN_ACTS)
        if count > 1:
            setattr(hf, _OWN_ATTENTION, (restore, count - 1))
        else:
            delattr(hf, _OWN_ATTENTION)
            restore()

    return remove


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Compute attention so that its pattern can be read; query, key and value are ``[batch, heads, pos, d_head]``."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    pattern = attention_weights(query, key, attention_mask, scaling, softcap, s_aux).to(value.dtype)
    for act in getattr(module, _PATTERN_ACTS, ()):
        new = act(pattern)
        pattern = pattern if new is None else new
    pattern = nn.functional.dropout(pattern, dropout, module.training)
    return (pattern @ value).transpose(1, 2).contiguous(), pattern

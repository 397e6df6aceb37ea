"""Attention patterns of a long text, a few queries at a time, so that those of all pairs of tokens are never held."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from probe.errors import ProbeError
from probe.hooks.attach import as_hf
from probe.hooks.attention import attention_weights, exchange_attention
from probe.models import Model, Site, place

See = Callable[[int, int, Tensor], None]
"""Called with the layer, the number of the first query, and the pattern ``[heads, queries, keys]`` of some queries. The
keys are the first ones of the text; later ones get no attention from these queries."""

_NAME = "probe-some-queries"
"""Our attention in transformers' registry."""
_SEE = "_probe_see_pattern"
"""Attribute of an attention module that is watched."""
_COPIES = 8
"""The number of float32 tensors of the size of the pattern of some queries that are held at once, here and by the one
who sees them."""
_FEWEST, _MOST_ROOM = 16, 2**28
"""The fewest queries at a time, and the most bytes that their patterns take; more would not be faster."""


@contextmanager
def watch_patterns(model: Model, layers: Sequence[int], see: See) -> Iterator[None]:
    """Hand over the attention patterns of every pass in the block, a few queries at a time.

    Each pass reads one whole text, without a cache. Its result is that of attention computed step by step.

    Args:
        layers: the blocks whose patterns are handed over, counted from 0.
        see: called for every few queries of every block, in order.

    Raises:
        NotApplicable: if a block has no attention pattern.
        ProbeError: if a pattern is captured or edited at the same time, or a pass reads several texts.
    """
    hf = as_hf(model)
    if hf.config._attn_implementation in ("probe", _NAME):
        raise ProbeError("attention patterns are already captured or edited; watch them in a block of its own")
    modules = [(layer, hf.get_submodule(place(hf, Site("pattern", layer)).module)) for layer in layers]
    room = min(model.budget // 2, _MOST_ROOM)
    restore = exchange_attention(hf, _NAME, _attend, sdpa_mask)
    try:
        for _, module in modules:
            setattr(module, _SEE, (room, []))
        for layer, module in modules:
            getattr(module, _SEE)[1].append((layer, see))
        yield
    finally:
        for module in {module for _, module in modules}:
            delattr(module, _SEE)
        restore()


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """Compute attention some queries at a time; query, key and value are ``[batch, heads, pos, d_head]``."""
    if not hasattr(module, _SEE) and softcap is None and s_aux is None:  # fused attention can do neither of these
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **given)
    if hasattr(module, _SEE) and len(query) != 1:
        raise ProbeError(f"attention patterns are watched in one text at a time, not in a batch of {len(query)}")
    groups, n = query.shape[1] // key.shape[1], query.shape[2]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    room, watching = getattr(module, _SEE, (_MOST_ROOM, ()))
    several = max(_FEWEST, room // (_COPIES * 4 * query.shape[0] * query.shape[1] * n))
    parts = []
    for start in range(0, n, several):
        end = min(n, start + several)
        # transformers leaves the mask out where it is only causal; the keys after the last query are then left out too.
        seen = end if attention_mask is None else key.shape[2]
        mask = (
            torch.ones(end - start, end, dtype=torch.bool, device=query.device).tril(start)
            if attention_mask is None
            else attention_mask[:, :, start:end]
        )
        some = attention_weights(query[:, :, start:end], key[:, :, :seen], mask, scaling, softcap, s_aux)
        some = some.to(value.dtype)
        for layer, see in watching:
            see(layer, start, some[0])  # of the one text
        parts.append(some @ value[:, :, :seen])
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None

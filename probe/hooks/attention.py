"""Attention of our own in a model: how it is put in place of the model's, and the weights that it computes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface


def exchange_attention(
    hf: PreTrainedModel, name: str, attend: Callable[..., Any], masks: Callable[..., Any]
) -> Callable[[], None]:
    """Let every block of a model compute attention by a function of ours.

    Args:
        name: what transformers' registry calls it.
        attend: the function, with the arguments of transformers' attention functions.
        masks: makes the masks that it takes, one of transformers' functions.

    Returns:
        A function that gives the model its own attention back.
    """
    own: Any = hf.config._attn_implementation
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, masks)
    hf.set_attn_implementation(name)
    return lambda: hf.set_attn_implementation(own)


def attention_weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
) -> Tensor:
    """Compute in float32 how much each query attends to each key; both are ``[batch, heads, pos, d_head]``.

    Args:
        mask: False where a key is hidden, or what is added to the scores.
        s_aux: a score of each head for attending to nothing (gpt-oss), so that its weights add up to less than 1.
    """
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    if s_aux is not None:
        scores = torch.cat([scores, s_aux.view(1, -1, 1, 1).expand(*scores.shape[:-1], 1).to(scores.dtype)], -1)
    return scores.softmax(-1, dtype=torch.float32)[..., : key.shape[-2]]

"""Teacher forcing: one pass over texts that are already written, aligned to the tokens that were emitted."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.hooks.reading import capture
from probe.hooks.upper import causal_masks
from probe.models import Model, Site


@dataclass(frozen=True)
class Forced:
    """A right-padded batch of prompt + emitted tokens, and where each emitted token is predicted.

    Attributes:
        ids: ``[rows, pos]``.
        valid: False at padding, ``[rows, pos]``.
        predicts: ``predicts[r, j]`` is the column whose logits predict emitted token j of row r, ``[rows, emitted]``.
        emitted: False beyond a row's own tokens, ``[rows, emitted]``.
    """

    ids: Int[Tensor, "rows pos"]
    valid: Bool[Tensor, "rows pos"]
    predicts: Int[Tensor, "rows emitted"]
    emitted: Bool[Tensor, "rows emitted"]

    @property
    def positions(self) -> Int[Tensor, "rows pos"]:
        return self.valid.long().cumsum(1).sub(1).clamp_(min=0)


def force(model: Model, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> Forced:
    """Put prompts and emitted ids together into one right-padded batch on the model's device.

    Raises:
        ValueError: if a prompt is empty; nothing would predict the first token after it.
    """
    if not all(prompts):
        raise ValueError("every prompt must have at least one token")
    width = max(len(prompt) + len(text) for prompt, text in zip(prompts, texts, strict=True))
    longest = max(len(text) for text in texts)
    ids = torch.full((len(texts), width), model.pad_id)
    valid = torch.zeros(len(texts), width, dtype=torch.bool)
    predicts = torch.zeros(len(texts), longest, dtype=torch.long)
    emitted = torch.zeros(len(texts), longest, dtype=torch.bool)
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        ids[row, : len(prompt) + len(text)] = torch.tensor([*prompt, *text])
        valid[row, : len(prompt) + len(text)] = True
        predicts[row, : len(text)] = torch.arange(len(prompt) - 1, len(prompt) + len(text) - 1)
        emitted[row, : len(text)] = True
    return Forced(*(tensor.to(model.device) for tensor in (ids, valid, predicts, emitted)))


@torch.no_grad()
def read_forced(
    model: Model, forced: Forced, layer: int
) -> tuple[Float[Tensor, "rows emitted vocab"], Float[Tensor, "rows emitted d_model"]]:
    """One pass: the logits that predict each emitted token, and ``resid_post.layer`` there."""
    site = Site("resid_post", layer)
    with capture(model, site, stop=False) as acts:
        out = model.hf(
            input_ids=forced.ids,
            attention_mask=causal_masks(model, forced.valid, forced.ids.shape[1]),
            position_ids=forced.positions,
            use_cache=False,
        )
    rows = torch.arange(len(forced.ids), device=forced.ids.device)[:, None]
    return out.logits[rows, forced.predicts], acts[site][rows, forced.predicts]

"""The layers above a site as a model of their own, sharing every parameter with the whole.

A shift added to ``resid_post.i`` changes nothing at or below block ``i``. So one forward pass of the whole model gives
the residual stream at the site, and whatever is tried there afterwards (a steered decoding step, a training step of
the vectors) runs only the blocks above it, through the model's own code.
"""

import copy
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from probe.models import Model


class _Enter(nn.Module):
    """Stands for the first block above the site; starts from the given state, whatever the trunk made of its inputs."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.hidden: Tensor | None = None

    def forward(self, _: Tensor, *args, **kwargs):
        return self.block(self.hidden, *args, **kwargs)


def _view(module: nn.Module) -> nn.Module:
    """A shallow copy whose children can be exchanged without touching the original's."""
    view = copy.copy(module)
    view._modules = dict(module._modules)
    view.__dict__.pop("forward", None)  # while a capture is open, that of the original
    return view


class UpperLayers:
    """The blocks above ``layer``, the final norm and the unembedding of ``model``.

    Args:
        model: any decoder whose blocks are a ``ModuleList`` of its trunk.
        layer: 0-based; the view starts from ``resid_post.layer``. Must not be the last block.
    """

    def __init__(self, model: Model, layer: int) -> None:
        blocks = model.layers
        if not 0 <= layer < len(blocks) - 1:
            raise ValueError(f"layer must lie between 0 and {len(blocks) - 2}, one below the last block; got {layer}")
        trunk = _view(model.hf.base_model)
        config: Any = copy.deepcopy(model.hf.base_model.config)
        config.num_hidden_layers = len(blocks) - layer - 1
        if getattr(config, "layer_types", None) is not None:
            config.layer_types = config.layer_types[layer + 1 :]
        trunk.__dict__["config"] = config
        self._enter = _Enter(blocks[layer + 1])
        name = next(name for name, child in trunk._modules.items() if child is blocks)
        trunk._modules[name] = nn.ModuleList([self._enter, *list(blocks)[layer + 2 :]])
        self._head = _view(model.hf)
        self._head._modules[model.hf.base_model_prefix] = trunk
        self._head.eval()

    def __call__(
        self,
        hidden: Float[Tensor, "rows pos d_model"],
        *,
        attention_mask: Tensor | dict[str, Tensor],
        position_ids: Int[Tensor, "rows pos"],
        cache: object | None = None,
        logits_to_keep: int = 0,
    ) -> Float[Tensor, "rows kept vocab"]:
        """Logits from the residual stream at the site; ``logits_to_keep`` as in transformers (0: all positions)."""
        self._enter.hidden = hidden
        out = self._head(
            inputs_embeds=hidden,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=logits_to_keep,
        )
        self._enter.hidden = None
        return out.logits


def causal_masks(model: Model, valid: Bool[Tensor, "rows keys"], queries: int) -> Tensor | dict[str, Tensor]:
    """Additive attention masks for the last ``queries`` of ``keys`` columns, padding and sliding windows included.

    Returns:
        ``[rows, 1, queries, keys]``, or one such tensor per layer type for models that mix full and sliding attention.
    """
    keys = valid.shape[1]
    key = torch.arange(keys, device=valid.device)
    query = key[keys - queries :, None]
    # A padded query sees itself, so that no row of the softmax is empty.
    seen = (valid[:, None, :] & (key <= query)) | (key == query)
    return additive_masks(model, seen, (query - key).expand_as(seen))


def additive_masks(
    model: Model, seen: Bool[Tensor, "rows queries keys"], distance: Int[Tensor, "rows queries keys"]
) -> Tensor | dict[str, Tensor]:
    """Turn who sees whom into what the model's attention takes.

    Args:
        seen: which keys each query may look at; never none.
        distance: how many positions back each key lies, for sliding windows.
    """
    lowest = torch.finfo(model.dtype).min

    def additive(allowed: Tensor) -> Tensor:
        mask = torch.zeros(allowed.shape, dtype=model.dtype, device=allowed.device)
        return mask.masked_fill_(~allowed, lowest)[:, None]

    types = set(getattr(model.hf.config, "layer_types", None) or ())
    window = getattr(model.hf.config, "sliding_window", None)
    near = seen if window is None else seen & (distance < window)
    if not types:  # Mistral, Phi-3: every layer has the window, if there is one
        return additive(near)
    if types == {"full_attention"}:
        return additive(seen)
    return {kind: additive(near if kind == "sliding_attention" else seen) for kind in types}

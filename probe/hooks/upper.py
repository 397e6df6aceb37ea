"""The layers above a site as a model of their own that shares every parameter with the whole.

A shift added to ``resid_post.i`` changes nothing at or below block ``i``. So one pass of the whole model gives the
residual stream at the site, and every later trial there (a steered decoding step, a training step of the vectors) runs
only the blocks above it, through the model's own code.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from probe.errors import NotApplicable
from probe.models import CHUNKED, Model, check_frequencies


class _Block(nn.Module):
    """Stands in the place of a block, and has its attributes."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._modules["block"], name)


class _Again(_Block):
    """Keeps only the input of a block for the backward pass, which runs the block again."""

    def forward(self, *args, **kwargs):
        return checkpoint(self.block, *args, use_reentrant=False, **kwargs)


class _Enter(_Block):
    """Replaces the first block above the site; starts from the given state and ignores its input."""

    hidden: Tensor | None = None

    def forward(self, _: Tensor, *args, **kwargs):
        return self.block(self.hidden, *args, **kwargs)


def view(module: nn.Module) -> nn.Module:
    """Make a shallow copy whose children can be replaced without changing the original."""
    view = copy.copy(module)
    view._modules = dict(module._modules)
    view.__dict__.pop("forward", None)  # an open capture has put it there
    return view


def trunk_of(hf: Any) -> Any:
    """The part of a model that gives the states which its head reads."""
    found = hf.get_decoder()
    if found is hf:  # Llama 4 does not name it as other models do
        return next(child for child in hf.children() if isinstance(child, PreTrainedModel))
    return hf.base_model if found is hf.get_output_embeddings() else found  # some call their unembedding "decoder"


def replaced(module: nn.Module, path: Sequence[str], by: nn.Module) -> nn.Module:
    """A view of a module in which the module at a path is another."""
    made = view(module)
    first, *rest = path
    child = module.get_submodule(first)
    made._modules[first] = replaced(child, rest, by) if rest else by
    return made


def _set_kinds(config: Any, kinds: Sequence[str]) -> None:
    """Set the kinds of the blocks of a config, also where it computes them from other values."""
    kind, name = type(config), config.attribute_map.get("layer_types", "layer_types")
    if isinstance(getattr(kind, name, None), property):
        config.__class__ = type(kind.__name__, (kind,), {name: kinds})
    else:
        config.layer_types = kinds


class UpperLayers:
    """The blocks above ``layer``, the final norm and the unembedding of ``model``.

    Args:
        model: any decoder whose blocks are a ``ModuleList`` of its trunk.
        layer: 0-based; the view starts from ``resid_post.layer``. Must not be the last block.

    Raises:
        ValueError: if there is no block above the layer.
        NotApplicable: if blocks read more than the residual stream (Gemma 4 with inputs for each layer).
    """

    def __init__(self, model: Model, layer: int) -> None:
        _check_alone(model)
        blocks = model.layers
        if not 0 <= layer < len(blocks) - 1:
            raise ValueError(f"layer must lie between 0 and {len(blocks) - 2}, one below the last block; got {layer}")
        whole = trunk_of(model.hf)
        trunk = view(whole)
        config: Any = copy.deepcopy(whole.config)
        kinds = getattr(config, "layer_types", None)  # some compute it from the number of layers
        config.num_hidden_layers = len(blocks) - layer - 1
        if kinds is not None:
            _set_kinds(config, kinds[layer + 1 :])
        trunk.__dict__["config"] = config
        first, *rest = list(blocks)[layer + 1 :]
        plain, light = _Enter(first), _Enter(_Again(first))
        self._ways = {
            False: (plain, nn.ModuleList([plain, *rest])),
            True: (light, nn.ModuleList([light, *map(_Again, rest)])),
        }
        self._trunk: Any = trunk
        self._name = next(name for name, child in trunk._modules.items() if child is blocks)
        path = next(name for name, module in model.hf.named_modules() if module is whole)
        self._head = replaced(model.hf, path.split("."), trunk).eval()

    def __call__(
        self,
        hidden: Float[Tensor, "rows pos d_model"],
        *,
        attention_mask: "Masks",
        position_ids: Int[Tensor, "rows pos"],
        cache: object | None = None,
        logits_to_keep: int = 0,
    ) -> Float[Tensor, "rows kept vocab"]:
        """Compute logits from the residual stream at the site.

        Args:
            hidden: the residual stream at ``resid_post.layer``.
            attention_mask: as from :func:`causal_masks`.
            cache: a key/value cache; None for whole texts.
            logits_to_keep: the number of last positions whose logits are returned; 0 for all.
        """
        how: dict[str, Any] = {"attention_mask": attention_mask, "position_ids": position_ids}
        out = self._run(self._head, hidden, False, past_key_values=cache, logits_to_keep=logits_to_keep, **how)
        return out.logits.to(hidden.device)

    def states(
        self,
        hidden: Float[Tensor, "rows pos d_model"],
        *,
        attention_mask: "Masks",
        position_ids: Int[Tensor, "rows pos"],
        cache: object | None = None,
        light: bool = False,
    ) -> Float[Tensor, "rows pos d_model"]:
        """Compute the states that the unembedding reads.

        Args:
            hidden, attention_mask, position_ids, cache: as above.
            light: keep only the input of each block for the backward pass, which runs the blocks again.
        """
        how: dict[str, Any] = {"attention_mask": attention_mask, "position_ids": position_ids}
        return self._run(self._trunk, hidden, light, past_key_values=cache, **how)[0].to(hidden.device)

    def _run(self, module: Any, hidden: Tensor, light: bool, **how: Any) -> Any:
        enter, self._trunk._modules[self._name] = self._ways[light]
        enter.hidden = hidden
        try:
            # What comes before the site is given a state of its own, because some models scale it in place (CTRL).
            return module(inputs_embeds=torch.zeros_like(hidden), use_cache=how["past_key_values"] is not None, **how)
        finally:
            enter.hidden = None


def _check_alone(model: Model) -> None:
    """Refuse a model whose blocks read more than the residual stream below them."""
    text: Any = model.hf.config.get_text_config(decoder=True)
    for name, what in (
        ("hidden_size_per_layer_input", "an input of its own for each token"),
        ("num_kv_shared_layers", "the keys and values of blocks below"),
    ):
        if getattr(text, name, 0):
            raise NotApplicable(
                f"blocks of {model.name} read {what} ({name} in its config), so those above a layer cannot run alone; "
                "use edit and capture on whole passes instead"
            )


Mask = TypeVar("Mask", Tensor, Tensor | None)
Masks = Tensor | Mapping[str, Tensor | None] | None
"""What a model takes as its attention mask: one for all blocks, or one for each kind of block. None: the causal mask
that the model makes itself."""


def causal_masks(model: Model, valid: Bool[Tensor, "rows keys"], queries: int) -> Masks:
    """Make causal attention masks for the last columns of a batch, with padding and sliding windows.

    A mask of long texts is large, so as little as possible is made. Whole texts without padding need none where
    attention is causal by itself (``sdpa``) and no window applies. Padding on the right is hidden by causality, so one
    mask serves all rows; what the model computes at that padding is meaningless.

    Args:
        model: the model that will use them.
        valid: False at padding.
        queries: the number of last columns that are run.

    Returns:
        An additive mask ``[rows, 1, queries, keys]``, or one for each layer type for models that mix them; that of
        linear attention says which of the columns are tokens, ``[rows, queries]``. None in place of a mask that is not
        needed.

    Raises:
        NotApplicable: if the texts are so long that the model's frequencies would depend on their length.
    """
    rows, keys = valid.shape
    # A state must not see padding before a token. A column after others is a token, or that of a row that has ended.
    states = dict.fromkeys(model.state_masks, valid[:, keys - queries :] if queries > 1 or keys == 1 else None)
    # Padded on the right, if at all: begins with a token, and no token follows padding.
    whole = queries == keys > 1 and bool(valid[:, 0].all()) and bool((valid[:, 1:] <= valid[:, :-1]).all())
    own = whole and _is_causal(model) and bool(valid[:, -1].all())
    windows = {kind: window for kind, window in model.mask_windows.items() if not own or _cuts(window, keys)}
    if whole:
        valid = valid[:1].new_ones(1, keys)
        states = dict.fromkeys(states)
    if model.longest_text is not None:
        check_frequencies(model.hf, int(valid.sum(1).max()))
    if not windows and not any(mask is not None for mask in states.values()):
        return None
    key = torch.arange(keys, device=valid.device)
    query = key[keys - queries :, None]
    seen = valid[:, None, :] & (key <= query)
    seen |= key == query  # a padded query sees itself, so that no row of the softmax is empty
    position = valid.long().cumsum(1).sub_(1).clamp_(min=0) if CHUNKED in windows else key[None]
    made = {
        kind: _additive(model, seen & _near(kind, window, position[:, keys - queries :], position))
        for kind, window in windows.items()
    }
    masks = {kind: made[kind].expand(rows, -1, -1, -1) if kind in made else None for kind in model.mask_windows}
    return _for_model(masks | states)


def additive_masks(
    model: Model,
    seen: Bool[Tensor, "rows queries keys"],
    queries: Int[Tensor, "rows queries"],
    keys: Int[Tensor, "rows keys"],
) -> Tensor | dict[str, Tensor]:
    """Turn boolean attention masks into the additive masks that the model's attention takes.

    They are not left boolean, because torch makes an additive one of a boolean one again in every block.

    Args:
        model: the model that will use them.
        seen: the keys that each query attends to; at least one for each query.
        queries, keys: the positions of queries and keys, for sliding windows and chunks.

    Returns:
        As :func:`causal_masks`, without None.

    Raises:
        NotApplicable: if the texts are so long that the model's frequencies would depend on their length, or the model
            has linear attention.
    """
    if model.state_layers:
        raise NotApplicable(f"{model.name} has linear attention, which cannot leave out some of the tokens before one")
    if model.longest_text is not None:
        check_frequencies(model.hf, int(seen.sum(-1).max()))
    return _for_model(
        {
            kind: _additive(model, seen & _near(kind, window, queries, keys))
            for kind, window in model.mask_windows.items()
        }
    )


def _near(
    kind: str | None, window: int | None, queries: Int[Tensor, "rows queries"], keys: Int[Tensor, "rows keys"]
) -> Bool[Tensor, "rows queries keys"] | bool:
    """Whether each key lies in the window of each query, or in its chunk of the text."""
    if not _cuts(window, keys.shape[1]):
        return True
    query, key = queries[:, :, None], keys[:, None, :]
    return query // window == key // window if kind == CHUNKED else query - key < window


def _additive(model: Model, seen: Bool[Tensor, "rows queries keys"]) -> Float[Tensor, "rows 1 queries keys"]:
    nothing = torch.zeros((), dtype=model.dtype, device=seen.device)
    return torch.where(seen, nothing, torch.finfo(model.dtype).min)[:, None]


def _for_model(masks: Mapping[str | None, Mask]) -> Mask | dict[str, Mask]:
    """One mask for all blocks, or those of each kind of block."""
    return masks[None] if None in masks else {kind: mask for kind, mask in masks.items() if kind is not None}


def _cuts(window: int | None, keys: int) -> TypeGuard[int]:
    """Whether a window hides a key of so many."""
    return window is not None and window < keys


def _is_causal(model: Model) -> bool:
    """Whether the attention of a model is causal when it is given no mask."""
    return getattr(model.hf.config.get_text_config(decoder=True), "_attn_implementation", None) == "sdpa"

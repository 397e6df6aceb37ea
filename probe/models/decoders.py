"""Which decoders probe runs, and what their attention masks are; the others are refused by name.

Batches here have masks, positions and a key/value cache of their own. That is right for a decoder whose blocks attend
to earlier tokens, all of them or those in a sliding window, at the positions it is given, and for known decoders some
of whose blocks keep a state of each row instead. For any other block (one that keeps another state, chooses its keys or
counts positions itself) the result would be silently wrong, so it is refused.
"""

import inspect
import sys
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from probe.errors import NotApplicable

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
"""The kinds of attention that probe runs, as ``layer_types`` of a config calls them."""

LINEAR, CONVOLUTION, BOTH = "linear_attention", "conv", "hybrid"
"""The kinds of block that keep a state of each row: instead of keys and values, or beside them."""

_NEITHER = ("mlp", "moe")
"""The kinds of block that keep nothing of a token."""

_WITH_STATES = (
    *("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"),
    *("olmo_hybrid", "kimi_linear", "bamba", "granitemoehybrid", "nemotron_h", "jamba", "falcon_h1"),
    *("lfm2", "lfm2_moe", "lfm3"),
)
"""Architectures whose states a batch here keeps, row by row. Their blocks read and write them through the cache alone,
and set padding to zero where they are told of it."""

_WINDOWED = {SLIDING: "create_sliding_window_causal_mask", CHUNKED: "create_chunked_causal_mask"}
"""What the code of a model calls to make masks with a sliding window, or of chunks."""

_NO_POSITIONS = ("mpt",)
"""Architectures that take no positions and need none: attention biases count columns back from the query."""


def check_decoder(hf: PreTrainedModel) -> None:
    """Check that probe can run a model.

    Raises:
        NotApplicable: saying why it cannot.
    """
    why = _why_not(hf)
    if why is not None:
        raise NotApplicable(
            f"'{hf.config.model_type}' models are not supported: {why}; use a decoder with full or sliding attention, "
            "such as Llama, Qwen 3 or Gemma 3 (docs/supported-models.md lists all)"
        )


def mask_windows(hf: PreTrainedModel) -> dict[str | None, int | None]:
    """Return the sliding window of each attention mask that a model takes; None where a mask has no window.

    The key is the kind of block that the mask is for, or None if one mask is for all blocks. For chunked attention the
    value is the size of a chunk.
    """
    config = hf.config.get_text_config(decoder=True)
    kinds, window = set(_kinds(config)), getattr(config, "sliding_window", None)
    if not kinds:
        return {None: window}
    if kinds == {FULL}:
        return {None: None}
    windows = {SLIDING: window, CHUNKED: getattr(config, "attention_chunk_size", None)}
    attending = {FULL if kind == BOTH else kind for kind in kinds} - {LINEAR, CONVOLUTION, *_NEITHER}
    return {kind: windows.get(kind) for kind in sorted(attending)}


def state_layers(hf: PreTrainedModel) -> tuple[int, ...]:
    """Return the layers that keep a state of each row."""
    kinds = _kinds(hf.config.get_text_config(decoder=True))
    return tuple(layer for layer, kind in enumerate(kinds) if kind in (LINEAR, CONVOLUTION, BOTH))


def state_masks(hf: PreTrainedModel) -> tuple[str, ...]:
    """Return the names of the masks that layers with a state take."""
    kinds = set(_kinds(hf.config.get_text_config(decoder=True)))
    return tuple(kind for kind in (LINEAR, CONVOLUTION) if kind in kinds or (kind == LINEAR and BOTH in kinds))


def n_attending(hf: PreTrainedModel) -> int:
    """Return the number of layers that keep keys and values."""
    config = hf.config.get_text_config(decoder=True)
    without = [kind for kind in _kinds(config) if kind in (LINEAR, CONVOLUTION, *_NEITHER)]
    return int(config.num_hidden_layers) - len(without)


def longest_text(hf: PreTrainedModel) -> int | None:
    """Return the number of tokens above which what a model computes depends on more than positions; None if never.

    Some rotary frequencies are chosen by the longest text of a batch, and keys that are cached keep those of a shorter
    text. Some queries are scaled by their column, padding included.
    """
    limits = _limits(hf)
    return min(limits) if limits else None


def check_frequencies(hf: PreTrainedModel, tokens: int) -> None:
    """Check that what a model computes does not depend on the batch for a text of so many tokens.

    Raises:
        NotApplicable: if it does.
    """
    limits = _limits(hf)
    limit = min(limits, default=None)
    if limit is not None and tokens > limit:
        raise NotApplicable(
            f"this '{hf.config.model_type}' model changes {limits[limit]} beyond {limit} tokens, for all texts "
            f"of a batch, and a text here may have {tokens}; give shorter texts or a smaller max_new_tokens"
        )


def _limits(hf: PreTrainedModel) -> dict[int, str]:
    """What a model changes in texts that have more tokens than each of these numbers."""
    config = hf.config.get_text_config(decoder=True)
    limits = {}
    for rope in _ropes(config):
        kind = str(rope.get("rope_type", rope.get("type")))
        if kind == "longrope":
            limit = rope.get("original_max_position_embeddings") or config.original_max_position_embeddings
            limits[limit] = "its rotary frequencies"
        elif "dynamic" in kind:
            # At exactly this many tokens, transformers keeps the frequencies of a longer text that it ran before.
            limits[config.max_position_embeddings - 1] = "its rotary frequencies"
    if config.model_type == "llama4_text" and config.attn_temperature_tuning:
        limits[int(config.floor_scale) - 1] = "the temperature of its attention"
    return limits


def _why_not(hf: PreTrainedModel) -> str | None:
    config = hf.config
    text = config.get_text_config(decoder=True)
    takes = inspect.signature(hf.forward).parameters
    if config.is_encoder_decoder:
        return "they are the decoder of an encoder-decoder model"
    if getattr(text, "is_decoder", None) is False and "encoder_hidden_states" in takes:
        return "without is_decoder in its config, this is an encoder, whose tokens see later tokens"
    if not getattr(text, "is_causal", True) or getattr(text, "use_bidirectional_attention", False) in (True, "all"):
        return "by its config, tokens of this one see later tokens"
    if type(hf).__module__.startswith("transformers.") and type(hf).__name__ not in _decoder_names():
        return f"{type(hf).__name__} is not a decoder-only language model"
    if not hasattr(text, "num_hidden_layers"):
        return "their config does not say how many blocks they have"
    with_states = text.model_type in _WITH_STATES
    if unknown := sorted(
        set(_kinds(text)) - {FULL, SLIDING, CHUNKED, *((LINEAR, CONVOLUTION, BOTH, *_NEITHER) if with_states else ())}
    ):
        return f"they have blocks of {', '.join(unknown)}"
    if not _kinds(text) and getattr(text, "attention_chunk_size", None):
        return "their blocks attend in chunks"
    if getattr(hf, "_is_stateful", False) and not with_states:
        return "their blocks keep a state, which padding would change"
    if "past_key_values" not in takes:
        return "they have no key/value cache"
    if _has_alibi(text):
        return "their attention biases (ALiBi) are counted from the padding mask"
    if any(hasattr(module, "create_position_ids_from_input_ids") for module in hf.modules()):
        return "they count positions from the padding token's id"
    if not _takes_positions(hf) and config.model_type not in _NO_POSITIONS:
        return "they count positions from the first column of a batch, padding included"
    if getattr(text, "attention_type", None) == "block_sparse":
        return "block_sparse attention skips keys in long texts; set attention_type to original_full in config.json"
    windowed = SLIDING in _kinds(text) or (not _kinds(text) and getattr(text, "sliding_window", None))
    if CHUNKED in _kinds(text) and not _applies(hf, CHUNKED):
        return "this one names attention in chunks that its code does not apply; remove it from config.json"
    if windowed and not _applies(hf, SLIDING):
        return "this one names a sliding window that its code does not apply; remove it from config.json"
    return None


def _decoder_names() -> set[str]:
    """The classes that transformers loads as decoder-only language models."""
    named = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    return {name for names in named for name in (names if isinstance(names, tuple) else (names,))}


def _kinds(config: Any) -> list[str]:
    """The kind of each block, where the config names it."""
    return list(getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ())


def _has_alibi(config: Any) -> bool:
    return config.model_type == "bloom" or bool(getattr(config, "alibi", False))


def _parts(hf: PreTrainedModel) -> list[nn.Module]:
    """The model, its trunk, and the text decoder in it."""
    return [hf, hf.base_model, hf.get_decoder()]


def _takes_positions(hf: PreTrainedModel) -> bool:
    takes = [inspect.signature(part.forward).parameters for part in _parts(hf)]
    return any("position_ids" in each for each in takes) and bool({"position_ids", "kwargs"} & set(takes[0]))


def _applies(hf: PreTrainedModel, kind: str) -> bool:
    """Whether the code of the model makes masks with a sliding window, or of chunks."""
    return any(hasattr(sys.modules[type(part).__module__], _WINDOWED[kind]) for part in _parts(hf))


def _ropes(config: Any) -> list[dict[str, Any]]:
    """The rotary parameters: one dict, or one for each kind of block."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    each = [value for value in found.values() if isinstance(value, dict)]
    return each or [found]

"""The sizes of a decoder that follow from its config, by which memory is estimated; no weights are needed."""

from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

_CHUNK = 64
"""Tokens that linear attention compares with each other when it reads a whole text."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a decoder; where its layers differ, the largest.

    Attributes:
        heads: query heads of a layer.
        kv_heads: key and value heads of a layer.
        d_head: width of a head.
        d_mlp: width of an MLP, or of one expert.
        cached: numbers that a layer with attention keeps of a token: its keys and values.
        scanned: numbers in float32 that a layer of linear attention holds of a token while it reads a whole text.
    """

    heads: int
    kv_heads: int
    d_head: int
    d_mlp: int
    cached: int
    scanned: int = 0

    @classmethod
    def of(cls, config: PretrainedConfig) -> "Sizes":
        """Read the sizes of the text decoder of a model."""
        text: Any = config.get_text_config(decoder=True)
        # As a dictionary: where layers differ, asking the config for such a value is an error.
        told = text.to_dict()

        def largest(*names: str) -> int:
            """The largest value under some names; layers may have one each."""
            found = [told.get(text.attribute_map.get(name, name)) for name in names]
            flat = [each for value in found for each in (value if isinstance(value, list | tuple) else [value])]
            return max((each for each in flat if isinstance(each, int) and not isinstance(each, bool)), default=0)

        width, heads = int(text.hidden_size), largest("num_attention_heads", "num_query_heads") or 1
        # None, or no such value: as many as queries have.
        grouped = largest("num_key_value_heads", "num_kv_heads", "num_global_key_value_heads") or heads
        if told.get("multi_query") and not told.get("new_decoder_architecture"):
            grouped = 1
        head = largest("head_dim", "global_head_dim") or width // heads
        keys = max(head, largest("qk_nope_head_dim") + largest("qk_rope_head_dim"))
        inner = largest("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size") or 4 * width
        written = largest("linear_num_value_heads")
        key, value = largest("linear_key_head_dim"), largest("linear_value_head_dim")
        return cls(
            heads,
            grouped,
            head,
            inner,
            cached=grouped * (keys + max(head, largest("v_head_dim"))),
            # Queries, keys and values, before and after the factors of each token, and the pairs of each chunk.
            scanned=written * (5 * key + 5 * value + 4 * _CHUNK),
        )

"""Where each kind of site is in each architecture: the table that everything about sites is derived from.

A kind of site is a line in `KINDS`; where an architecture has it is a line in `ARCHITECTURES`.

``resid_post.i`` is the output of block ``i``, which Hugging Face calls ``hidden_states[i + 1]`` (but for the last
block, whose entry there has gone through the final norm). ``attn_out.i`` and ``mlp_out.i`` are what is *added to the
residual stream*: where a norm follows the attention or the MLP (Gemma 2 and 3, OLMo 2), its output. So everywhere::

    resid_mid.i  = resid_pre.i + attn_out.i
    resid_post.i = resid_mid.i + mlp_out.i

``q``, ``k`` and ``v`` are what the projections give, before any norm of their own and before rotation.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor


@dataclass(frozen=True)
class Kind:
    """A kind of site."""

    lens: str
    """Its hook in TransformerLens; ``{i}`` stands for the layer."""

    shape: str
    """Its axes."""

    meaning: str
    """One line for people."""

    @property
    def layered(self) -> bool:
        """Whether every block has one."""
        return "{i}" in self.lens

    @property
    def by_token(self) -> bool:
        """Whether it has one state a token (a pattern has one a pair of tokens)."""
        return self.shape.startswith("batch pos")


KINDS = {
    "embed": Kind("hook_embed", "batch pos d_model", "token embedding, scaled as the model does, without positions"),
    "resid_pre": Kind("blocks.{i}.hook_resid_pre", "batch pos d_model", "residual stream that enters block i"),
    "q": Kind("blocks.{i}.attn.hook_q", "batch pos n_heads d_head", "queries, before any norm and rotation"),
    "k": Kind("blocks.{i}.attn.hook_k", "batch pos n_kv_heads d_head", "keys, before any norm and rotation"),
    "v": Kind("blocks.{i}.attn.hook_v", "batch pos n_kv_heads d_head", "values"),
    "pattern": Kind("blocks.{i}.attn.hook_pattern", "batch n_heads query key", "attention of each query to each key"),
    "z": Kind("blocks.{i}.attn.hook_z", "batch pos n_heads d_head", "each head's mix of values, which W_O reads"),
    "attn_out": Kind("blocks.{i}.hook_attn_out", "batch pos d_model", "what the attention adds to the residual stream"),
    "resid_mid": Kind("blocks.{i}.hook_resid_mid", "batch pos d_model", "residual stream between attention and MLP"),
    "mlp_pre": Kind("blocks.{i}.mlp.hook_pre", "batch pos d_mlp", "MLP neurons (gates) before their nonlinearity"),
    "mlp_post": Kind("blocks.{i}.mlp.hook_post", "batch pos d_mlp", "MLP neurons, which W_out reads"),
    "mlp_out": Kind("blocks.{i}.hook_mlp_out", "batch pos d_model", "what the MLP adds to the residual stream"),
    "resid_post": Kind("blocks.{i}.hook_resid_post", "batch pos d_model", "residual stream that leaves block i"),
    "final_norm": Kind("ln_final.hook_out", "batch pos d_model", "output of the last norm, read by the unembedding"),
    "logits": Kind("unembed.hook_out", "batch pos vocab", "output of the unembedding, before any soft cap"),
}
"""Every kind of site, in the order in which a forward pass meets them."""


@dataclass(frozen=True)
class Heads:
    """How many heads there are and how wide each is; what a `View` needs to find its part."""

    n_heads: int
    n_kv_heads: int
    d_head: int

    @classmethod
    def of(cls, config: Any) -> "Heads":
        """Read off a Hugging Face config."""
        n_heads = config.num_attention_heads
        n_kv_heads = getattr(config, "num_key_value_heads", None) or n_heads
        return cls(n_heads, n_kv_heads, getattr(config, "head_dim", None) or config.hidden_size // n_heads)


View = Callable[[Tensor, Heads], Tensor]
"""The site as a view of the tensor that the module has, so that what is written to it is written to the tensor."""


def _by_head(whole: Tensor, heads: Heads) -> Tensor:
    return whole.unflatten(-1, (-1, heads.d_head))


def _third(number: int) -> View:
    """Queries, keys and values one after the other, as many of each."""
    return lambda whole, heads: whole.unflatten(-1, (3, -1, heads.d_head))[..., number, :, :]


def _third_of_each_head(number: int) -> View:
    """Head by head, each its query, key and value."""
    return lambda whole, heads: whole.unflatten(-1, (-1, 3, heads.d_head))[..., number, :]


def _grouped(number: int) -> View:
    """All queries, then the fewer keys, then as many values."""

    def view(whole: Tensor, heads: Heads) -> Tensor:
        sizes = (heads.n_heads, heads.n_kv_heads, heads.n_kv_heads)
        return _by_head(whole, heads).narrow(-2, sum(sizes[:number]), sizes[number])

    return view


def _first_half(whole: Tensor, _: Heads) -> Tensor:
    return whole.narrow(-1, 0, whole.shape[-1] // 2)


@dataclass(frozen=True)
class Place:
    """Where a site is in a Hugging Face model: going into or coming out of a module."""

    module: str
    """Dotted path from the model; ``{i}`` stands for the layer until the place is that of one site."""

    side: Literal["input", "output", "pattern"] = "output"
    """``input``: the module's first argument. ``output``: what it returns; of a tuple, the first. ``pattern``: what
    the attention in it makes of queries and keys."""

    view: View | None = None
    """Which part of that tensor, and in which shape; None for all of it as it is."""

    heads: Heads | None = None
    """Filled in when the place is that of one site in one model."""

    def read(self, whole: Tensor) -> Tensor:
        """The site, as a view of the module's tensor."""
        if self.view is None:
            return whole
        assert self.heads is not None
        return self.view(whole, self.heads)

    def write(self, whole: Tensor, new: Tensor) -> Tensor:
        """The module's tensor with the site exchanged; the one given is left alone."""
        if self.view is None:
            return new
        changed = whole.clone()
        self.read(changed).copy_(new)
        return changed

    @property
    def is_part(self) -> bool:
        """Whether the module's tensor holds more than this site."""
        return self.view is not None and self.view is not _by_head

    @property
    def nnsight(self) -> str:
        """How nnsight writes the module's tensor: ``model.layers[2].output``; add ``[0]`` where it returns a tuple."""
        module = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", self.module)
        return f"{module}.output[1]" if self.side == "pattern" else f"{module}.{self.side}"


_LLAMA: dict[str, Place] = {
    "embed": Place("model.embed_tokens"),
    "resid_pre": Place("model.layers.{i}", "input"),
    "q": Place("model.layers.{i}.self_attn.q_proj", view=_by_head),
    "k": Place("model.layers.{i}.self_attn.k_proj", view=_by_head),
    "v": Place("model.layers.{i}.self_attn.v_proj", view=_by_head),
    "pattern": Place("model.layers.{i}.self_attn", "pattern"),
    "z": Place("model.layers.{i}.self_attn.o_proj", "input", _by_head),
    "attn_out": Place("model.layers.{i}.self_attn"),
    "resid_mid": Place("model.layers.{i}.post_attention_layernorm", "input"),
    "mlp_pre": Place("model.layers.{i}.mlp.gate_proj"),
    "mlp_post": Place("model.layers.{i}.mlp.down_proj", "input"),
    "mlp_out": Place("model.layers.{i}.mlp"),
    "resid_post": Place("model.layers.{i}"),
    "final_norm": Place("model.norm"),
    "logits": Place("lm_head"),
}
_GEMMA = _LLAMA | {  # norms before and after both halves of a block
    "attn_out": Place("model.layers.{i}.post_attention_layernorm"),
    "resid_mid": Place("model.layers.{i}.pre_feedforward_layernorm", "input"),
    "mlp_out": Place("model.layers.{i}.post_feedforward_layernorm"),
}
_OLMO2 = _LLAMA | {  # norms only after them, so that attention and MLP read the residual stream itself
    "attn_out": Place("model.layers.{i}.post_attention_layernorm"),
    "resid_mid": Place("model.layers.{i}.mlp", "input"),
    "mlp_out": Place("model.layers.{i}.post_feedforward_layernorm"),
}
_PHI3 = _LLAMA | {
    "q": Place("model.layers.{i}.self_attn.qkv_proj", view=_grouped(0)),
    "k": Place("model.layers.{i}.self_attn.qkv_proj", view=_grouped(1)),
    "v": Place("model.layers.{i}.self_attn.qkv_proj", view=_grouped(2)),
    "mlp_pre": Place("model.layers.{i}.mlp.gate_up_proj", view=_first_half),
}
_GPT2: dict[str, Place] = {
    "embed": Place("transformer.wte"),
    "resid_pre": Place("transformer.h.{i}", "input"),
    "q": Place("transformer.h.{i}.attn.c_attn", view=_third(0)),
    "k": Place("transformer.h.{i}.attn.c_attn", view=_third(1)),
    "v": Place("transformer.h.{i}.attn.c_attn", view=_third(2)),
    "pattern": Place("transformer.h.{i}.attn", "pattern"),
    "z": Place("transformer.h.{i}.attn.c_proj", "input", _by_head),
    "attn_out": Place("transformer.h.{i}.attn"),
    "resid_mid": Place("transformer.h.{i}.ln_2", "input"),
    "mlp_pre": Place("transformer.h.{i}.mlp.c_fc"),
    "mlp_post": Place("transformer.h.{i}.mlp.c_proj", "input"),
    "mlp_out": Place("transformer.h.{i}.mlp"),
    "resid_post": Place("transformer.h.{i}"),
    "final_norm": Place("transformer.ln_f"),
    "logits": Place("lm_head"),
}
_NEOX: dict[str, Place] = {
    "embed": Place("gpt_neox.embed_in"),
    "resid_pre": Place("gpt_neox.layers.{i}", "input"),
    "q": Place("gpt_neox.layers.{i}.attention.query_key_value", view=_third_of_each_head(0)),
    "k": Place("gpt_neox.layers.{i}.attention.query_key_value", view=_third_of_each_head(1)),
    "v": Place("gpt_neox.layers.{i}.attention.query_key_value", view=_third_of_each_head(2)),
    "pattern": Place("gpt_neox.layers.{i}.attention", "pattern"),
    "z": Place("gpt_neox.layers.{i}.attention.dense", "input", _by_head),
    "attn_out": Place("gpt_neox.layers.{i}.attention"),
    "resid_mid": Place("gpt_neox.layers.{i}.post_attention_layernorm", "input"),
    "mlp_pre": Place("gpt_neox.layers.{i}.mlp.dense_h_to_4h"),
    "mlp_post": Place("gpt_neox.layers.{i}.mlp.dense_4h_to_h", "input"),
    "mlp_out": Place("gpt_neox.layers.{i}.mlp"),
    "resid_post": Place("gpt_neox.layers.{i}"),
    "final_norm": Place("gpt_neox.final_layer_norm"),
    "logits": Place("lm_head"),
}
ARCHITECTURES: dict[str, dict[str, Place]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "gpt2": _GPT2,
    "gpt_neox": _NEOX,
    "phi3": _PHI3,
    "olmo2": _OLMO2,
}
"""Hugging Face ``model_type`` to the place of each kind."""


def lacks(config: Any) -> dict[str, str]:
    """The kinds that a model of this config has no place for though its architecture is in the table, and why."""
    if config.model_type == "gpt_neox" and config.use_parallel_residual:
        return {"resid_mid": "attention and MLP read the same residual stream, so there is none between them"}
    return {}

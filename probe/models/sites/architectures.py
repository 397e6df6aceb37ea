"""The table of sites: the place of each kind of site in each architecture.

A kind of site is a line in `KINDS`; its place in an architecture is a line in `ARCHITECTURES`.

``resid_post.i`` is the output of block ``i``, which Hugging Face calls ``hidden_states[i + 1]`` (except for the last
block, where that entry is the output of the final norm). ``attn_out.i`` and ``mlp_out.i`` are the vectors *added to the
residual stream*: where a norm follows the attention or the MLP (Gemma 2 and 3, OLMo 2), the output of that norm. So in
every architecture::

    resid_mid.i  = resid_pre.i + attn_out.i
    resid_post.i = resid_mid.i + mlp_out.i

``q``, ``k`` and ``v`` are the outputs of the projections, before any norm of their own and before rotation.
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
    """Name of its hook in TransformerLens; ``{i}`` is the layer."""

    shape: str
    """Names of its axes, separated by spaces."""

    meaning: str
    """Description in one line."""

    @property
    def layered(self) -> bool:
        """Whether every block has this site."""
        return "{i}" in self.lens

    @property
    def by_token(self) -> bool:
        """Whether it has one vector for each token; an attention pattern has a weight for each pair of tokens."""
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
"""Every kind of site, in the order in which a forward pass computes them."""


@dataclass(frozen=True)
class Heads:
    """The attention heads of a model; a `View` needs them to find its part of a tensor."""

    n_heads: int
    """Number of query heads."""
    n_kv_heads: int
    """Number of key and value heads."""
    d_head: int
    """Width of each head."""

    @classmethod
    def of(cls, config: Any) -> "Heads":
        """Read the heads from a Hugging Face config."""
        n_heads = config.num_attention_heads
        n_kv_heads = getattr(config, "num_key_value_heads", None) or n_heads
        return cls(n_heads, n_kv_heads, getattr(config, "head_dim", None) or config.hidden_size // n_heads)


View = Callable[[Tensor, Heads], Tensor]
"""Returns the site as a view of the module's tensor, so that writing to the site writes to the tensor."""


def _by_head(whole: Tensor, heads: Heads) -> Tensor:
    return whole.unflatten(-1, (-1, heads.d_head))


def _third(number: int) -> View:
    """Part ``number`` of queries, keys and values, stored one after the other with as many heads each."""
    return lambda whole, heads: whole.unflatten(-1, (3, -1, heads.d_head))[..., number, :, :]


def _third_of_each_head(number: int) -> View:
    """Part ``number`` of queries, keys and values, stored head by head."""
    return lambda whole, heads: whole.unflatten(-1, (-1, 3, heads.d_head))[..., number, :]


def _grouped(number: int) -> View:
    """Part ``number`` of all queries, the fewer keys and as many values, stored in this order."""

    def view(whole: Tensor, heads: Heads) -> Tensor:
        sizes = (heads.n_heads, heads.n_kv_heads, heads.n_kv_heads)
        return _by_head(whole, heads).narrow(-2, sum(sizes[:number]), sizes[number])

    return view


def _first_half(whole: Tensor, _: Heads) -> Tensor:
    return whole.narrow(-1, 0, whole.shape[-1] // 2)


@dataclass(frozen=True)
class Place:
    """The place of a site in a Hugging Face model: the input or the output of a module."""

    module: str
    """Dotted path from the model; ``{i}`` is the layer, filled in for the place of a single site."""

    side: Literal["input", "output", "pattern"] = "output"
    """``input`` is the module's first argument, ``output`` what it returns (the first item of a tuple), ``pattern`` the
    attention weights computed in it."""

    view: View | None = None
    """Selects and reshapes the part of the tensor that is the site; None for the whole tensor."""

    heads: Heads | None = None
    """The heads of the model, filled in for the place of a single site."""

    def read(self, whole: Tensor) -> Tensor:
        """Return the site as a view of the module's tensor."""
        if self.view is None:
            return whole
        assert self.heads is not None
        return self.view(whole, self.heads)

    def write(self, whole: Tensor, new: Tensor) -> Tensor:
        """Return the module's tensor with the site replaced by ``new``; ``whole`` itself is not changed."""
        if self.view is None:
            return new
        changed = whole.clone()
        self.read(changed).copy_(new)
        return changed

    @property
    def is_part(self) -> bool:
        """Whether the module's tensor contains more than this site."""
        return self.view is not None and self.view is not _by_head

    @property
    def nnsight(self) -> str:
        """The module's tensor in nnsight: ``model.layers[2].output``; add ``[0]`` where the module returns a tuple."""
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
_HYBRID = {
    kind: _LLAMA[kind] for kind in ("embed", "resid_pre", "resid_mid", "mlp_out", "resid_post", "final_norm", "logits")
}
ARCHITECTURES: dict[str, dict[str, Place]] = {
    "llama4_text": _HYBRID,
    "qwen3_next": _HYBRID,
    "qwen3_5_text": _HYBRID,
    "qwen3_5_moe_text": _HYBRID,
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
"""The place of each kind of site, by Hugging Face ``model_type``."""


def lacks(config: Any) -> dict[str, str]:
    """Return the kinds of site that a model of this config lacks although its architecture has them, and why."""
    if config.model_type == "gpt_neox" and config.use_parallel_residual:
        return {"resid_mid": "attention and MLP read the same residual stream, so there is none between them"}
    return {}

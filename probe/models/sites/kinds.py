"""The kinds of site: what each is, its shape, and its name in TransformerLens.

``resid_post.i`` is the output of block ``i``, which Hugging Face calls ``hidden_states[i + 1]`` (except for the last
block, where that entry is the output of the final norm). ``attn_out.i`` and ``mlp_out.i`` are the vectors *added to the
residual stream*: after the norm that follows the attention or the MLP (Gemma 2 to 4, OLMo 2 and 3, GLM-4), and after
the factor that scales them (Granite). So in every architecture::

    resid_mid.i  = resid_pre.i + attn_out.i
    resid_post.i = resid_mid.i + mlp_out.i

except in Gemma 4, where ``resid_post.i = (resid_mid.i + mlp_out.i + per_layer_out.i) * layer_scalar``. Where attention
and MLP stand side by side there is no ``resid_mid``, and ``resid_post.i = resid_pre.i + attn_out.i + mlp_out.i``.

``q``, ``k`` and ``v`` are the outputs of the projections, before any norm of their own and before rotation. ``z`` is
what the output projection reads: where the heads are gated (Qwen3-Next, Qwen3.5), what the gate lets through.

In a mixture of experts, ``mlp_out`` is the sum of ``expert_out`` and, where some experts serve every token, their
``shared_out`` (which Qwen2-MoE and its successors multiply by a gate of its own). To switch an expert off, set its
``expert_weights`` to zero where ``experts`` names it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of site."""

    lens: str | None
    """Name of its hook in TransformerLens; ``{i}`` is the layer. None if it has none."""

    shape: str
    """Names of its axes, separated by spaces."""

    meaning: str
    """Description in one line."""

    @property
    def layered(self) -> bool:
        """Whether it belongs to a block."""
        return self.lens is None or "{i}" in self.lens

    @property
    def by_token(self) -> bool:
        """Whether it has one vector for each token; an attention pattern has a weight for each pair of tokens."""
        return self.shape.startswith("batch pos")


KINDS = {
    "embed": Kind("hook_embed", "batch pos d_model", "token embedding, scaled as the model does, without positions"),
    "resid_pre": Kind("blocks.{i}.hook_resid_pre", "batch pos d_model", "residual stream that enters block i"),
    "q": Kind("blocks.{i}.attn.hook_q", "batch pos n_heads d_head", "queries, before any norm and rotation"),
    "k": Kind("blocks.{i}.attn.hook_k", "batch pos n_kv_heads d_head", "keys, before any norm and rotation"),
    "v": Kind("blocks.{i}.attn.hook_v", "batch pos n_kv_heads d_head", "values, before any norm"),
    "pattern": Kind("blocks.{i}.attn.hook_pattern", "batch n_heads query key", "attention of each query to each key"),
    "z": Kind("blocks.{i}.attn.hook_z", "batch pos n_heads d_head", "each head's mix of values, which W_O reads"),
    "attn_out": Kind("blocks.{i}.hook_attn_out", "batch pos d_model", "what the attention adds to the residual stream"),
    "resid_mid": Kind("blocks.{i}.hook_resid_mid", "batch pos d_model", "residual stream between attention and MLP"),
    "mlp_pre": Kind("blocks.{i}.mlp.hook_pre", "batch pos d_mlp", "MLP neurons (gates) before their nonlinearity"),
    "mlp_post": Kind("blocks.{i}.mlp.hook_post", "batch pos d_mlp", "MLP neurons, which W_out reads"),
    "router_logits": Kind(None, "batch pos n_experts", "scores by which experts are chosen; read-only"),
    "experts": Kind(None, "batch pos n_chosen", "numbers of the chosen experts; read-only"),
    "expert_weights": Kind(None, "batch pos n_chosen", "weights of the chosen experts, in the order of experts"),
    "expert_out": Kind(None, "batch pos d_model", "weighted sum of what the chosen experts return"),
    "shared_out": Kind(None, "batch pos d_model", "what the experts that serve every token return"),
    "mlp_out": Kind("blocks.{i}.hook_mlp_out", "batch pos d_model", "what the MLP adds to the residual stream"),
    "per_layer_out": Kind(None, "batch pos d_model", "what the token's own input to this layer adds (Gemma 4)"),
    "resid_post": Kind("blocks.{i}.hook_resid_post", "batch pos d_model", "residual stream that leaves block i"),
    "final_norm": Kind("ln_final.hook_out", "batch pos d_model", "output of the last norm, read by the unembedding"),
    "logits": Kind("unembed.hook_out", "batch pos vocab", "output of the unembedding, before any scale or soft cap"),
}
"""Every kind of site, in the order in which a forward pass computes them."""

ATTENTION = ("q", "k", "v", "pattern", "z")
"""The kinds inside an attention that compares queries with keys."""

NEURONS = ("mlp_pre", "mlp_post")
"""The kinds inside an MLP whose neurons all tokens use."""

MIXTURE = ("router_logits", "experts", "expert_weights", "expert_out", "shared_out")
"""The kinds inside a mixture of experts."""

RESIDUAL = ("embed", "resid_pre", "resid_post", "final_norm", "logits")
"""The kinds that a decoder has whose architecture is not in the table, if a trial finds them."""

"""The table of sites: the place of each kind of site in each architecture.

The kinds are the lines of `KINDS`; their places in an architecture are a line of `ARCHITECTURES`. Paths begin at the
text decoder, wherever it is in the model. Layers of a model may differ, so a kind may have several places, of which a
layer has the first whose module it has; a layer that has none lacks the site.
"""

from typing import Any

import torch
from torch import Tensor

from probe.models.sites.places import (
    Place,
    by_head,
    by_value,
    first_half,
    grouped,
    third,
    third_of_each_head,
    without_gate,
)

Places = Place | tuple[Place, ...]
"""The places that a kind of site may have, in the order in which they are tried."""

HEAD = "(unembedding)"
"""Stands for the unembedding, which is outside the text decoder and has many names."""

_LLAMA: dict[str, Places] = {
    "embed": Place("embed_tokens"),
    "resid_pre": Place("layers.{i}", "input"),
    "q": Place("layers.{i}.self_attn.q_proj", view=by_head),
    "k": Place("layers.{i}.self_attn.k_proj", view=by_head),
    "v": Place("layers.{i}.self_attn.v_proj", view=by_value),
    "pattern": Place("layers.{i}.self_attn", "pattern"),
    "z": Place("layers.{i}.self_attn.o_proj", "input", by_value),
    "attn_out": Place("layers.{i}.self_attn"),
    "resid_mid": Place("layers.{i}.post_attention_layernorm", "input"),
    "mlp_pre": Place("layers.{i}.mlp.gate_proj"),
    "mlp_post": Place("layers.{i}.mlp.down_proj", "input"),
    "mlp_out": Place("layers.{i}.mlp"),
    "resid_post": Place("layers.{i}"),
    "final_norm": Place("norm"),
    "logits": Place(HEAD),
}
_GEMMA = _LLAMA | {  # norms before and after both halves of a block
    "attn_out": Place("layers.{i}.post_attention_layernorm"),
    "resid_mid": Place("layers.{i}.pre_feedforward_layernorm", "input"),
    "mlp_out": Place("layers.{i}.post_feedforward_layernorm"),
}
_OLMO2 = _LLAMA | {  # norms only after them, so that attention and MLP read the residual stream itself
    "attn_out": Place("layers.{i}.post_attention_layernorm"),
    "resid_mid": Place("layers.{i}.mlp", "input"),
    "mlp_out": Place("layers.{i}.post_feedforward_layernorm"),
}
_FUSED_GATES: dict[str, Places] = {"mlp_pre": Place("layers.{i}.mlp.gate_up_proj", view=first_half)}
_PHI3 = (
    _LLAMA
    | _FUSED_GATES
    | {
        "q": Place("layers.{i}.self_attn.qkv_proj", view=grouped(0)),
        "k": Place("layers.{i}.self_attn.qkv_proj", view=grouped(1)),
        "v": Place("layers.{i}.self_attn.qkv_proj", view=grouped(2)),
    }
)
_GLM4 = (
    _LLAMA
    | _FUSED_GATES
    | {  # norms before and after both halves, by other names
        "attn_out": Place("layers.{i}.post_self_attn_layernorm"),
        "mlp_out": Place("layers.{i}.post_mlp_layernorm"),
    }
)
_GRANITE = _LLAMA | {
    "embed": Place("embed_tokens", scale="embedding_multiplier"),
    "attn_out": Place("layers.{i}.self_attn", scale="residual_multiplier"),
    "mlp_out": Place("layers.{i}.mlp", scale="residual_multiplier"),
}
_PARALLEL = {kind: place for kind, place in _LLAMA.items() if kind != "resid_mid"}
_PHI = _PARALLEL | {
    "z": Place("layers.{i}.self_attn.dense", "input", by_value),
    "mlp_pre": Place("layers.{i}.mlp.fc1"),
    "mlp_post": Place("layers.{i}.mlp.fc2", "input"),
    "final_norm": Place("final_layernorm"),
}
_STARCODER2 = _LLAMA | {
    "mlp_pre": Place("layers.{i}.mlp.c_fc"),
    "mlp_post": Place("layers.{i}.mlp.c_proj", "input"),
}


_CHOSEN = "the router has already chosen when it returns them; edit expert_weights or mlp_out instead"


def _mixture(mlp: str, router: str, shared: str = "") -> dict[str, Places]:
    """The sites in a mixture of experts whose router returns the logits, weights and numbers of the experts."""
    module = f"layers.{{i}}.{mlp}.{router}"
    found: dict[str, Places] = {
        "router_logits": Place(module, flat=True, only_read=_CHOSEN),
        "experts": Place(module, item=2, flat=True, only_read=_CHOSEN),
        "expert_weights": Place(module, item=1, flat=True),
        "expert_out": Place(f"layers.{{i}}.{mlp}.experts", flat=True),
    }
    if shared:
        found["shared_out"] = Place(f"layers.{{i}}.{mlp}.{shared}", flat=True)
    return found


_MIXTRAL = _LLAMA | _mixture("mlp", "gate")
_QWEN_MOE = _LLAMA | _mixture("mlp", "gate", "shared_expert")
_GLM_MOE = _LLAMA | _mixture("mlp", "gate", "shared_experts")
_GPT_OSS = _LLAMA | _mixture("mlp", "router")
_GRANITE_MOE = (
    _GRANITE
    | _mixture("block_sparse_moe", "router")
    | {"mlp_out": Place("layers.{i}.block_sparse_moe", scale="residual_multiplier")}
)
_DEEPSEEK = {kind: place for kind, place in _GLM_MOE.items() if kind not in ("k", "v")} | {
    # Keys and values of all heads are made of one latent vector inside the attention.
    "q": (
        Place("layers.{i}.self_attn.q_proj", view=by_head),
        Place("layers.{i}.self_attn.q_b_proj", view=by_head),
    ),
}
_LLAMA4 = _LLAMA | {
    "mlp_pre": Place("layers.{i}.feed_forward.gate_proj"),
    "mlp_post": Place("layers.{i}.feed_forward.down_proj", "input"),
    "mlp_out": Place("layers.{i}.feed_forward", flat=True),
    # Its router returns the weights of all experts, and adds what the experts return to the output of the shared one
    # in place, so that neither has a site.
    "router_logits": Place("layers.{i}.feed_forward.router", item=1, flat=True, only_read=_CHOSEN),
}
_QWEN_NEXT = _QWEN_MOE | {  # attention with a gate, or linear attention
    "q": Place("layers.{i}.self_attn.q_proj", view=without_gate),
    "attn_out": (Place("layers.{i}.self_attn"), Place("layers.{i}.linear_attn")),
}
_GEMMA4 = _GEMMA | {
    "resid_mid": Place(
        "layers.{i}.pre_feedforward_layernorm",
        "input",
        only_read="it is also read by modules that an edit here would not reach; edit attn_out instead",
    ),
    "router_logits": Place("layers.{i}.router.proj", flat=True),
    "expert_weights": Place("layers.{i}.router", item=1, flat=True),
    "experts": Place(
        "layers.{i}.router",
        item=2,
        flat=True,
        only_read=_CHOSEN,
    ),
    "expert_out": Place("layers.{i}.post_feedforward_layernorm_2", flat=True),
    "shared_out": Place("layers.{i}.post_feedforward_layernorm_1", flat=True),
    "per_layer_out": Place("layers.{i}.post_per_layer_input_norm"),
}
_GPT2: dict[str, Places] = {
    "embed": Place("wte"),
    "resid_pre": Place("h.{i}", "input"),
    "q": Place("h.{i}.attn.c_attn", view=third(0)),
    "k": Place("h.{i}.attn.c_attn", view=third(1)),
    "v": Place("h.{i}.attn.c_attn", view=third(2)),
    "pattern": Place("h.{i}.attn", "pattern"),
    "z": Place("h.{i}.attn.c_proj", "input", by_value),
    "attn_out": Place("h.{i}.attn"),
    "resid_mid": Place("h.{i}.ln_2", "input"),
    "mlp_pre": Place("h.{i}.mlp.c_fc"),
    "mlp_post": Place("h.{i}.mlp.c_proj", "input"),
    "mlp_out": Place("h.{i}.mlp"),
    "resid_post": Place("h.{i}"),
    "final_norm": Place("ln_f"),
    "logits": Place(HEAD),
}
_NEOX: dict[str, Places] = {
    "embed": Place("embed_in"),
    "resid_pre": Place("layers.{i}", "input"),
    "q": Place("layers.{i}.attention.query_key_value", view=third_of_each_head(0)),
    "k": Place("layers.{i}.attention.query_key_value", view=third_of_each_head(1)),
    "v": Place("layers.{i}.attention.query_key_value", view=third_of_each_head(2)),
    "pattern": Place("layers.{i}.attention", "pattern"),
    "z": Place("layers.{i}.attention.dense", "input", by_value),
    "attn_out": Place("layers.{i}.attention"),
    "resid_mid": Place("layers.{i}.post_attention_layernorm", "input"),
    "mlp_pre": Place("layers.{i}.mlp.dense_h_to_4h"),
    "mlp_post": Place("layers.{i}.mlp.dense_4h_to_h", "input"),
    "mlp_out": Place("layers.{i}.mlp"),
    "resid_post": Place("layers.{i}"),
    "final_norm": Place("final_layer_norm"),
    "logits": Place(HEAD),
}
ARCHITECTURES: dict[str, dict[str, Places]] = {
    **dict.fromkeys(("llama", "mistral", "ministral", "ministral3", "qwen2", "qwen3", "smollm3", "olmo"), _LLAMA),
    **dict.fromkeys(("gemma", "seed_oss", "stablelm", "cwm", "ernie4_5", "internlm3", "iquestcoder"), _LLAMA),
    **dict.fromkeys(("gemma2", "gemma3_text"), _GEMMA),
    "gemma4_text": _GEMMA4,
    "glm": _LLAMA | _FUSED_GATES,
    "glm4": _GLM4,
    "gpt2": _GPT2,
    "gpt_neox": _NEOX,
    "granite": _GRANITE,
    "granitemoe": _GRANITE_MOE,
    **dict.fromkeys(("olmo2", "olmo3"), _OLMO2),
    "phi": _PHI,
    "phi3": _PHI3,
    **dict.fromkeys(("cohere", "cohere2"), _PARALLEL),
    "starcoder2": _STARCODER2,
    **dict.fromkeys(("mixtral", "olmoe", "qwen3_moe"), _MIXTRAL),
    "qwen2_moe": _QWEN_MOE,
    **dict.fromkeys(("glm4_moe", "dots1"), _GLM_MOE),
    "gpt_oss": _GPT_OSS,
    **dict.fromkeys(("deepseek_v2", "deepseek_v3"), _DEEPSEEK),
    "llama4_text": _LLAMA4,
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), _QWEN_NEXT),
}
"""The places of each kind of site, by Hugging Face ``model_type`` of the text model."""


def is_parallel(config: Any) -> bool:
    """Whether attention and MLP of a block read the same residual stream."""
    places = ARCHITECTURES.get(config.model_type, {})
    return bool(getattr(config, "use_parallel_residual", False)) or (bool(places) and "resid_mid" not in places)


def scaled_logits(config: Any, logits: Tensor) -> Tensor:
    """Apply a model's scale and soft cap, if its config names them, to what its unembedding returns."""
    if scaling := getattr(config, "logits_scaling", None):
        # Granite divides by it.
        logits = logits * scaling if config.model_type == "hyperclovax" else logits / scaling
    for name in ("logit_scale", "lm_head_multiplier"):
        if (factor := getattr(config, name, None)) is not None:
            logits = logits * factor
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)

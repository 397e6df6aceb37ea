"""A tiny random model of any decoder of transformers, made from its config class alone.

``tiny_model(tiny_config("mixtral"))`` shrinks the default config of the class: widths, heads, layers, experts and
windows, in nested configs too. A model with sliding windows gets blocks of every kind that its class has.
"""

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

VOCAB = 64
WINDOW = 8
LAYERS = 4

#: Values by the names that configs give them.
_NAMES = [
    (
        32,
        "hidden_size n_embd d_model dim emb_dim dim_model word_embed_proj_dim embedding_size max_lora_rank "
        "moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size",
    ),
    (
        64,
        "intermediate_size ffn_dim d_inner n_inner ffn_hidden_size encoder_ffn_dim decoder_ffn_dim block_ff_dim "
        "dim_ff dff intermediate_size_mlp dense_intermediate_size mamba_d_ssm lru_width attention_rnn_size "
        "feed_forward_size",
    ),
    (LAYERS, "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_decoder_layers"),
    (
        4,
        "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads num_experts "
        "num_local_experts n_routed_experts moe_num_experts linear_num_key_heads linear_num_value_heads "
        "mamba_n_heads mamba_num_heads",
    ),
    (
        2,
        "num_key_value_heads num_kv_heads swa_num_key_value_heads num_global_key_value_heads num_experts_per_tok "
        "num_experts_per_token moe_k moe_topk top_k_experts",
    ),
    (1, "n_group topk_group n_groups mamba_n_groups"),
    (
        8,
        "head_dim attention_head_dim v_head_dim qk_nope_head_dim qk_rope_head_dim global_head_dim swa_head_dim "
        "swa_v_head_dim kv_channels query_pre_attn_scalar q_lora_rank kv_lora_rank index_head_dim rotary_dim "
        "mamba_d_state state_size ssm_state_size hidden_size_per_layer_input laurel_rank",
    ),
    (16, "linear_key_head_dim linear_value_head_dim mamba_d_head mamba_head_dim"),
    (
        WINDOW,
        "sliding_window attention_window_size attention_chunk_size local_attention window_size keep_window_size",
    ),
    (VOCAB, "vocab_size text_vocab_size vocab_size_per_layer_input"),
    (512, "max_position_embeddings n_positions n_ctx max_seq_len"),
    (0.2, "initializer_range initializer_std init_std"),
]
_SIZES = {name: value for value, names in _NAMES for name in names.split()}

#: Names that are None by default and must not be, or that matter only when they are set.
_SET = ("num_experts_per_tok", "n_routed_experts", "head_dim", "num_key_value_heads", "sliding_window")

#: Not every width is a number of its own.
_SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1, 3]},
    "big_bird": {"attention_type": "original_full"},
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in ("full_attention", "sliding_attention")
        }
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots1": {"n_shared_experts": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "gemma3n_text": {"num_kv_shared_layers": 2},
    "gemma4_unified": dict.fromkeys(("image_token_id", "video_token_id", "audio_token_id"), 1),
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm3": {"layer_types": ["conv", "full_attention", "conv", "sliding_attention"]},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [16, 32]},
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_config(kind: str, **changes: Any) -> PretrainedConfig:
    """The shrunk config of a model type."""
    made = CONFIG_MAPPING[kind]
    return made(**_shrunk(made()) | _SPECIAL.get(kind, {}) | changes)


def tiny_model(config: PretrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A random model of a config, which decodes until the limit on tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = None
    return model


def _shrunk(default: PretrainedConfig) -> dict[str, Any]:
    """The arguments that make a config of this class tiny."""
    own = getattr(default, "attribute_map", {})
    values = {**default.to_dict(), **vars(default)}
    small: dict[str, Any] = {}
    for name in {**dict.fromkeys(values), **own}:
        value = values.get(own.get(name, name))
        if isinstance(value, PretrainedConfig):
            small[name] = _shrunk(value)
        elif name in _SIZES and (_is_number(value) or (value is None and name in _SET)):
            small[own.get(name, name)] = _SIZES[name]
    said = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "is_decoder": True, "use_sliding_window": True}
    small |= {name: value for name, value in said.items() if name in values}
    if values.get("num_key_value_heads") == values.get("num_attention_heads") and "num_key_value_heads" in small:
        small["num_key_value_heads"] = small["num_attention_heads"]
    return small | _layers(default, own, small)


def _layers(default: PretrainedConfig, own: dict[str, str], small: dict[str, Any]) -> dict[str, Any]:
    """The kind of each block, where the config names them: every kind in turn."""
    name = own.get("layer_types", "layer_types")
    held = getattr(type(default), name, None)
    kinds = list(dict.fromkeys(getattr(default, name, None) or ()))
    if not kinds or (isinstance(held, property) and held.fset is None):
        return {}
    if set(kinds) <= {"full_attention", "sliding_attention"} and "sliding_window" in small:
        kinds = ["sliding_attention", "full_attention"]
    found: dict[str, Any] = {name: [kinds[i % len(kinds)] for i in range(LAYERS)]}
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

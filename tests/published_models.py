"""Tiny models in the place of published ones: their configs and chat templates, with small sizes and random weights.

``tests/models/published/ORG--NAME/`` holds the structure of a published model in our own words: ``config.json`` with
its real sizes, ``tokenizer_config.json`` with its special tokens, and ``chat_template.jinja``, which reads what the
published one reads.
"""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from probe.models import ModelConfig, PairConfig

FIXTURES = Path(__file__).parent / "models" / "published"

_LAYERS = 4
_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 16,
    "initializer_range": 0.2,
}


def fixture_folder(hub_id: str) -> Path:
    return FIXTURES / hub_id.replace("/", "--")


def tiny_published(hub_id: str, root: Path, words: PreTrainedTokenizerFast, seed: int) -> Path:
    """Write a tiny model in the place of a published one, and return its folder."""
    folder = root / hub_id.replace("/", "--")
    if folder.exists():
        return folder
    told: dict[str, Any] = json.loads((fixture_folder(hub_id) / "config.json").read_text())
    told.pop("quantization_config", None)
    told |= {name: value for name, value in _SIZES.items() if told.get(name) is not None}
    told |= {name: told[name][:_LAYERS] for name in ("layer_types", "no_rope_layers") if name in told}
    tokenizer = _tokenizer(hub_id, root, words)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    folder.mkdir(parents=True)
    # Embeddings are padded, as in published pairs, so that each model can read what the other's tokenizer adds.
    vocab = -(-len(tokenizer) // 64) * 64
    (folder / "config.json").write_text(json.dumps(told | ids | {"vocab_size": vocab, "dtype": "float32"}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(hub_id: str, root: Path, words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer of the story grammar with the special tokens and the chat template of a published model."""
    words.save_pretrained(plain := root / "words")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(plain)
    told = json.loads((fixture_folder(hub_id) / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer.add_special_tokens({"additional_special_tokens": told["added_tokens"]})
    for name in ("bos_token", "eos_token", "pad_token"):
        if told.get(name) is not None:
            setattr(tokenizer, name, told[name])
    template = fixture_folder(hub_id) / "chat_template.jinja"
    tokenizer.chat_template = template.read_text(encoding="utf-8") if template.exists() else None
    return tokenizer


def tiny_adapter(base: Path, root: Path) -> Path:
    """Write a LoRA adapter of Tina's shape (rank 32, all linear layers) with random weights, and return its folder."""
    folder = root / "adapter"
    if folder.exists():
        return folder
    kinds = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks for a property that transformers has renamed
        torch.manual_seed(7)
        lora = LoraConfig(r=32, lora_alpha=128, target_modules=kinds, init_lora_weights=False, task_type="CAUSAL_LM")
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora).save_pretrained(folder)
    return folder


def tiny_pair(pair: PairConfig, root: Path, words: PreTrainedTokenizerFast) -> PairConfig:
    """Point a published pair at tiny models; its prompts and other settings stay."""

    def placed(member: ModelConfig, seed: int) -> ModelConfig:
        folder = tiny_published(member.path, root, words, seed)
        adapter = None if member.adapter is None else str(tiny_adapter(folder, root))
        return replace(member, path=str(folder), adapter=adapter)

    return replace(pair, base=placed(pair.base, 1), thinking=placed(pair.thinking, 2))

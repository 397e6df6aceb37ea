"""Passes of models at their real size, made of fake tensors: nothing is computed, but bytes are counted."""

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, Qwen2Config
from transformers.initialization import no_init_weights

from benchmarks.peak import Peak

SIZES = {
    "1.5B": (28, 1536, 12, 2, 8960, 151936, True),
    "7B": (28, 3584, 28, 4, 18944, 152064, False),
    "32B": (64, 5120, 40, 8, 27648, 152064, False),
}
"""Layers, width, heads, key and value heads, width of the MLP, vocabulary, and whether the head is the embedding."""


def qwen(name: str, *, layers: int | None = None) -> Qwen2Config:
    """The config of Qwen2.5 of that size.

    Args:
        layers: the number of blocks, if it is another.
    """
    own, width, heads, pairs, inner, vocab, tied = SIZES[name]
    return Qwen2Config(
        num_hidden_layers=layers or own,
        hidden_size=width,
        num_attention_heads=heads,
        num_key_value_heads=pairs,
        intermediate_size=inner,
        vocab_size=vocab,
        tie_word_embeddings=tied,
        max_position_embeddings=131072,
    )


def reading_peak(config: Qwen2Config, tokens: int) -> int:
    """The bytes, besides the weights in bfloat16, of a pass without gradients over one padded text."""
    with FakeTensorMode():
        hf = _made(config)
        ids, mask = torch.zeros(1, tokens, dtype=torch.long), _mask(tokens)
        with torch.no_grad(), Peak() as held:
            hf(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)
    return held.peak + mask.nbytes


def training_peak(config: Qwen2Config, tokens: int, *, light: bool) -> int:
    """The bytes of a forward and a backward pass of frozen blocks over one text, without its logits.

    Args:
        light: checkpoint the blocks.
    """
    with FakeTensorMode():
        hf = _made(config)
        if light:
            hf.activation_checkpointing_enable()
            hf.train()
        mask = _mask(tokens)
        with Peak() as held:
            states = torch.zeros(1, tokens, config.hidden_size, dtype=torch.bfloat16, requires_grad=True)
            out = hf.model(inputs_embeds=states, attention_mask=mask, use_cache=False)
            out.last_hidden_state.sum().backward()
    return held.peak + mask.nbytes


def _made(config: Qwen2Config) -> Any:
    with no_init_weights():
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval().requires_grad_(False)


def _mask(tokens: int) -> torch.Tensor:
    """An additive mask, as for a text that is padded beside a longer one."""
    return torch.zeros(1, 1, tokens, tokens, dtype=torch.bfloat16)

"""Configs of models that are planned and never made, with the sizes of Qwen2.5."""

from pathlib import Path

from transformers import Qwen2Config

SIZES = {
    "1.5B": (28, 1536, 12, 2, 8960, 151936, True),
    "7B": (28, 3584, 28, 4, 18944, 152064, False),
    "32B": (64, 5120, 40, 8, 27648, 152064, False),
}


def qwen(name: str) -> Qwen2Config:
    """The config of Qwen2.5 of that size."""
    layers, width, heads, pairs, inner, vocab, tied = SIZES[name]
    return Qwen2Config(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        num_key_value_heads=pairs,
        intermediate_size=inner,
        vocab_size=vocab,
        tie_word_embeddings=tied,
    )


def write_config(folder: Path, name: str) -> str:
    """Write the config alone into a new folder, and return its path."""
    folder.mkdir(parents=True)
    config = qwen(name)
    config.architectures = ["Qwen2ForCausalLM"]
    (folder / "config.json").write_text(config.to_json_string())
    return str(folder)

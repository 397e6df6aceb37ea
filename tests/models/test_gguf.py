"""A GGUF file gives the model it was written from, as plain float weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from probe.errors import ProbeError
from probe.models import Model, load_model

gguf = pytest.importorskip("gguf")

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.layers": "blk",
}


def write_gguf(model: Model, path: Path) -> Path:
    """Write a Qwen2 model (whose weights GGUF keeps as they are) and its byte-level tokenizer."""
    config, tokenizer = model.hf.config, model.tokenizer
    writer = gguf.GGUFWriter(str(path), "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    # Byte-level vocabularies without any merge are read as another kind, so there is one, of a piece that is not used.
    vocab = [*sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get), "zz"]
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocab)
    writer.add_token_types([gguf.TokenType.CONTROL if piece in special else gguf.TokenType.NORMAL for piece in vocab])
    writer.add_token_merges(["z z"])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    for name, tensor in model.hf.state_dict().items():
        for theirs, ours in _NAMES.items():
            name = name.replace(theirs, ours)
        rows = int(name in ("token_embd.weight", "output.weight"))
        writer.add_tensor(name, np.pad(tensor.numpy(), [(0, rows)] + [(0, 0)] * (tensor.ndim - 1)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@torch.no_grad()
def test_a_gguf_file_gives_the_same_model(tiny_folder, tmp_path):
    model = load_model(tiny_folder("qwen2", "letters"))
    read = load_model(write_gguf(model, tmp_path / "tiny.gguf"))
    assert read.name == "tiny"
    ids = model.prompt_ids("So 12 + 7 = 19.")
    assert read.prompt_ids("So 12 + 7 = 19.") == ids
    batch = torch.tensor([ids])
    torch.testing.assert_close(read.hf(batch).logits[..., :-1], model.hf(batch).logits)
    read.hf.save_pretrained(tmp_path / "plain")


def test_a_file_that_is_no_gguf(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"not a model")
    with pytest.raises(ProbeError, match=r"tokenizer of model .* cannot be read"):
        load_model(tmp_path / "x.gguf")

"""Models whose edges are known."""

import copy

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama import LlamaForCausalLM

from probe.circuits.pairs.pairs import Pairs
from probe.models import ModelConfig, load_model


def drawn_pairs(rows=6, length=9, seed=0, vocab=100):
    """Clean and corrupt rows that differ in three tokens."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(6, vocab, (rows, length), generator=generator)
    corrupt = clean.clone()
    corrupt[:, 2:5] = torch.randint(6, vocab, (rows, 3), generator=generator)
    right, wrong = (torch.randint(6, vocab, (rows,), generator=generator) for _ in "rw")
    return Pairs((clean,), (corrupt,), (right,), (wrong + (wrong == right).long(),))


@pytest.fixture(scope="module")
def llama(tiny_folder):
    return load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu")


@pytest.fixture
def without_groups(llama, tmp_path):
    """The same function as the grouped Llama, with keys and values of its own for every head."""
    config = copy.deepcopy(llama.hf.config)
    config.num_key_value_heads = config.num_attention_heads
    twin = LlamaForCausalLM(config)
    state = dict(llama.hf.state_dict())
    each = config.hidden_size // config.num_attention_heads
    for name, tensor in state.items():
        if "k_proj" in name or "v_proj" in name:
            groups = tensor.view(-1, each, tensor.shape[-1])
            state[name] = groups.repeat_interleave(config.num_attention_heads // len(groups), 0).flatten(0, 1)
    twin.load_state_dict(state)
    twin.save_pretrained(tmp_path)
    llama.tokenizer.save_pretrained(tmp_path)
    return load_model(ModelConfig(str(tmp_path)), device="cpu")


@pytest.fixture(scope="module")
def wired(words, tmp_path_factory):
    """A Llama with a known circuit: three edges in sequence, and three by way of an MLP; no other writer is active.

    The stream has four parts: the embedding writes A; a0.h1 reads A and writes B; a1.h2 reads B and writes D; m0 reads
    A and writes C; a1.h3 reads C and writes D; the logits read D. Other edges act only through the scale of norms.
    """
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=64,
        pad_token_id=words.pad_token_id,
        eos_token_id=words.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    parts = dict(zip("ABCD", torch.arange(32).view(4, 8), strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" not in name:
                tensor.normal_(0, 0.5, generator=torch.Generator().manual_seed(len(name)))
        embedding, unembedding = model.model.embed_tokens.weight, model.lm_head.weight
        embedding[:, 8:] = 0
        unembedding[:, :24] = 0
        for i, block in enumerate(model.model.layers):
            attention, mlp = block.self_attn, block.mlp
            read, write = torch.zeros(32, 32), torch.zeros(32, 32)
            heads = {0: [(1, "A", "B")], 1: [(2, "B", "D"), (3, "C", "D")]}[i]
            for head, reads, writes in heads:
                own = slice(8 * head, 8 * head + 8)
                read[own, parts[reads]] = 1
                write[parts[writes], own] = 1
            attention.v_proj.weight.mul_(read)
            attention.o_proj.weight.mul_(write)
            attention.q_proj.weight.zero_()
            if i == 0:
                mlp.gate_proj.weight[:, 8:] = 0
                mlp.up_proj.weight[:, 8:] = 0
                mlp.down_proj.weight.mul_(torch.isin(torch.arange(32), parts["C"])[:, None])
            else:
                mlp.down_proj.weight.zero_()
    folder = tmp_path_factory.mktemp("wired")
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return load_model(ModelConfig(str(folder)), device="cpu")


WIRES = (
    "embed->a0.h1<v>",
    "a0.h1->a1.h2<v>",
    "a1.h2->logits",
    "embed->m0",
    "m0->a1.h3<v>",
    "a1.h3->logits",
)

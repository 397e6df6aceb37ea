"""Next-token training of the bundled models, from scratch (``tiny-base``) or of a trained model (``tiny-sft``)."""

import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from probe.hooks import check_finite
from probe.models import seeded
from probe.organisms.checkpoint import Keep, load_checkpoint, save_checkpoint
from probe.organisms.corpus import IGNORE, Document, pool_batches
from probe.organisms.precision import autocast
from probe.organisms.tokenizer import EOS, PAD
from probe.progress import progress_bar


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Make a randomly initialised Llama of 1.1 M parameters: 4 layers, width 128.

    Args:
        tokenizer: sets the vocabulary and the special tokens.
        seed: seeds the weights.
    """
    vocab = tokenizer.get_vocab()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=512,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        pad_token_id=vocab[PAD],
        eos_token_id=vocab[EOS],
        bos_token_id=None,
    )
    with seeded(seed):
        return LlamaForCausalLM(config)


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    document: Callable[[random.Random], Document],
    folder: Path,
    *,
    tokens: int,
    seed: int,
    lr: float,
    keep: Keep | None = None,
    progress: bool = False,
) -> PreTrainedModel:
    """Train in place until ``tokens`` tokens have carried loss.

    Args:
        model: the model, with gradients enabled.
        document: writes one document (``corpus.py``).
        folder: holds the checkpoint and ``log.jsonl``. An interrupted run resumes from its last pool.
        tokens: number of tokens that carry loss.
        seed: seeds the documents.
        lr: peak learning rate of AdamW: linear warm-up over 200 steps, then cosine to 2 %.
        keep: called after every pool with the number of steps done and the model.
        progress: show a progress bar.

    Returns:
        ``model``, in evaluation mode.
    """
    pad = tokenizer.get_vocab()[PAD]
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.05)
    at = load_checkpoint(folder / "checkpoint", model, optimizer) or {"pool": 0, "step": 0, "tokens": 0, "seconds": 0.0}
    bar = progress_bar(
        total=tokens, initial=at["tokens"], desc=folder.name, unit="token", unit_scale=True, show=progress
    )
    model.train()
    while at["tokens"] < tokens:
        began, losses = time.perf_counter(), []
        for ids, labels in pool_batches(document, tokenizer, seed=seed, pool=at["pool"]):
            if at["tokens"] >= tokens:
                break
            cosine = 0.5 * (1 + math.cos(math.pi * at["tokens"] / tokens))
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, (at["step"] + 1) / 200) * (0.02 + 0.98 * cosine)
            with autocast():
                loss = model(input_ids=ids, labels=labels, attention_mask=(ids != pad).long()).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            check_finite(loss.detach(), f"the loss of {folder.name} at step {at['step']}")
            losses.append(loss.item())
            learned = int((labels != IGNORE).sum())
            at["tokens"] += learned
            at["step"] += 1
            bar.update(learned)
        at["pool"] += 1
        at["seconds"] += time.perf_counter() - began
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(at | {"loss": sum(losses) / len(losses)}) + "\n")
        save_checkpoint(folder / "checkpoint", model, optimizer, at)
        if keep is not None:
            keep(at["step"], model)
    bar.close()
    return model.eval()

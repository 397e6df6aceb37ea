"""Writes adapters for other software: canonical PEFT folders, and models with an adapter merged into their weights."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from probe.adapters.exports.lora import LoRA, check_fits, read_lora, shares_embedding, write_lora
from probe.adapters.mounting import check_bare
from probe.adapters.training.tune import CARD
from probe.errors import ProbeError
from probe.files import read_json, write_json
from probe.models import Model, ModelConfig, load_model


def canonical(folder: str | Path, out: str | Path) -> Path:
    """Write an adapter in a form that PEFT, vLLM and llama.cpp all read alike.

    The scale is folded into B, all modules have the same rank, and ``lora_alpha`` equals ``r``. (vLLM ignores
    ``rank_pattern`` and ``alpha_pattern``; llama.cpp ignores those and ``use_rslora``.) Modules that add nothing are
    left out. What was written is read again and compared.

    Args:
        folder: the adapter.
        out: the folder that is written.

    Raises:
        ProbeError: if ``folder`` holds no plain LoRA.
    """
    folder, out = Path(folder), Path(out)
    adapter = read_lora(folder)
    parts = dict(adapter.parts)
    kept = {name: part for name, part in parts.items() if part.a.any() and part.b.any()}
    kept = kept or dict(list(parts.items())[:1])
    about = ("base_model_name_or_path", "revision", "fan_in_fan_out")
    card = read_json(folder / CARD) if (folder / CARD).exists() else None
    write_lora(kept, out, {name: adapter.config.get(name) for name in about if name in adapter.config})
    if card is not None:
        write_json(out / CARD, card)
    return out


@torch.no_grad()
def merged(model: Model, folder: str | Path, out: str | Path) -> Path:
    """Write a model with an adapter merged into its weights, and its tokenizer; then load it again and compare.

    An output layer that shares the embedding's weights gets weights of its own if the adapter changes it.

    Args:
        model: the base model, which is not changed.
        folder: the adapter.
        out: the folder that is written.

    Raises:
        ProbeError: if the adapter does not fit the model, the model has an adapter on or quantised weights, or the
            written model is another than the merged one.
    """
    folder, out = Path(folder), Path(out)
    adapter = read_lora(folder)
    check_fits(model, adapter)
    check_bare(model)
    if wrong := [name for name in adapter.parts if not _weight(model.hf, name).is_floating_point()]:
        raise ProbeError(f"{wrong[0]} of {model.name} is quantised: load the model unquantised to merge an adapter")
    whole: Any = copy.deepcopy(model.hf).float()
    _merge(whole, adapter)
    whole.to(dtype=model.dtype)
    whole.save_pretrained(str(out))
    model.tokenizer.save_pretrained(str(out))
    wanted = whole.state_dict()
    config = ModelConfig(str(out), prompt=model.config.prompt, trust_remote_code=model.config.trust_remote_code)
    found = load_model(config, device="cpu", dtype=model.dtype).hf.state_dict()
    for name, tensor in wanted.items():
        if name not in found or not torch.equal(found[name], tensor.cpu()):
            raise ProbeError(f"{out} was read back and differs at {name}: report this, and do not use it")
    return out


def _merge(whole: Any, adapter: LoRA) -> None:
    """Add an adapter to the float32 weights of a model; a layer gets new weights, which nothing else shares."""
    tied = shares_embedding(whole, whole.get_output_embeddings())
    for name, part in adapter.parts.items():
        layer, (a, b) = whole.get_submodule(name), part.folded
        added = (b @ a).to(layer.weight.device)
        layer.weight = nn.Parameter(layer.weight + (added.T if isinstance(layer, Conv1D) else added))
    if tied and not shares_embedding(whole, whole.get_output_embeddings()):
        for config in (whole.config, whole.config.get_text_config()):
            config.tie_word_embeddings = False


def _weight(hf: nn.Module, name: str) -> torch.Tensor:
    return hf.get_submodule(name).weight  # pyright: ignore[reportReturnType]

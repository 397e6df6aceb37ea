"""Writes adapters for other software: canonical PEFT folders, and models with an adapter merged into their weights."""

import copy
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.integrations.accelerate import load_offloaded_parameter
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as hf_logging

from probe.adapters.exports.lora import LoRA, Part, check_fits, read_lora, shares_embedding, write_lora
from probe.adapters.mounting import check_bare
from probe.adapters.training.tune import CARD
from probe.errors import ProbeError
from probe.files import read_json, write_json
from probe.models import Model, check_not_offloaded

_SHARD = "4GB"
"""The largest file of a merged model: a file is collected in memory before it is written."""


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
    """Write a model with an adapter merged into its weights, and its tokenizer; then read it again and compare.

    One layer is merged at a time, in float32, and its new weights wait in a temporary file of ``out``, so that memory
    holds no second model. An output layer that shares the embedding's weights gets weights of its own if the adapter
    changes it.

    Args:
        model: the base model, which is afterwards as before.
        folder: the adapter.
        out: the folder that is written.

    Raises:
        ProbeError: if the adapter does not fit the model, the model has an adapter on, or quantised or offloaded
            weights, or the written model is another than the merged one.
    """
    folder, out = Path(folder), Path(out)
    adapter = read_lora(folder)
    check_fits(model, adapter)
    check_bare(model)
    check_not_offloaded(model.hf, model.name, "merging an adapter")
    if wrong := [name for name in adapter.parts if not _weight(model.hf, name).is_floating_point()]:
        raise ProbeError(f"{wrong[0]} of {model.name} is quantised: load the model unquantised to merge an adapter")
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".merging-", dir=out) as waiting,
        _merged_in(model.hf, adapter, Path(waiting)) as whole,
    ):
        whole.save_pretrained(str(out), max_shard_size=_SHARD)
        model.tokenizer.save_pretrained(str(out))
        _check_written(model, whole, out, Path(waiting))
    return out


@contextmanager
def _merged_in(hf: Any, adapter: LoRA, waiting: Path) -> Iterator[Any]:
    """Inside the block, a model has an adapter in its weights; afterwards its own parameters are in their places again.

    Args:
        waiting: the folder in which new weights are kept; memory holds one layer's.
    """
    tied, config = shares_embedding(hf, hf.get_output_embeddings()), hf.config
    own = {name: hf.get_submodule(name).weight for name in adapter.parts}
    try:
        hf.config = copy.deepcopy(config)  # saving writes into it
        for i, (name, part) in enumerate(adapter.parts.items()):
            layer = hf.get_submodule(name)
            layer.weight = nn.Parameter(_on_disk(_sum(layer, part), waiting / f"{i}.bin"), requires_grad=False)
        if tied and not shares_embedding(hf, hf.get_output_embeddings()):
            for each in (hf.config, hf.config.get_text_config()):
                each.tie_word_embeddings = False
        yield hf
    finally:
        hf.config = config
        for name, weight in own.items():
            hf.get_submodule(name).weight = weight


def _sum(layer: Any, part: Part) -> Tensor:
    """The weights of a layer with its part of an adapter, added in float32, in the layer's dtype."""
    a, b = part.folded
    added = b @ a
    total = layer.weight.to("cpu", torch.float32, copy=True).add_(added.T if isinstance(layer, Conv1D) else added)
    return total.to(layer.weight.dtype)


def _on_disk(tensor: Tensor, path: Path) -> Tensor:
    """A tensor of the same values in a file that is mapped into memory."""
    mapped = torch.from_file(str(path), shared=True, size=tensor.numel(), dtype=tensor.dtype).view(tensor.shape)
    return mapped.copy_(tensor)


def _check_written(model: Model, whole: Any, out: Path, waiting: Path) -> None:
    """Compare a written model with what was to be written, as transformers reads it, one tensor at a time.

    Raises:
        ProbeError: if a tensor is missing or differs.
    """
    with _quiet():
        read: Any = AutoModelForCausalLM.from_pretrained(
            str(out),
            dtype=model.dtype,
            device_map={"": "disk"},
            offload_folder=str(waiting / "read"),
            trust_remote_code=model.config.trust_remote_code,
        )
    found = read.state_dict()
    for name, tensor in whole.state_dict().items():
        other = found.get(name)
        if other is not None and other.is_meta:
            try:
                other = load_offloaded_parameter(read, name)
            except KeyError:  # it is in no file
                other = None
        if other is None or not torch.equal(other, tensor.cpu()):
            raise ProbeError(f"{out} was read back and differs at {name}: report this, and do not use it")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress bar of reading weights, and the warning that they stay on disk, which is intended."""
    warns, shown = logging.getLogger("accelerate.big_modeling"), hf_logging.is_progress_bar_enabled()
    level = warns.level
    hf_logging.disable_progress_bar()
    warns.setLevel(logging.ERROR)
    try:
        yield
    finally:
        warns.setLevel(level)
        if shown:
            hf_logging.enable_progress_bar()


def _weight(hf: nn.Module, name: str) -> torch.Tensor:
    return hf.get_submodule(name).weight  # pyright: ignore[reportReturnType]

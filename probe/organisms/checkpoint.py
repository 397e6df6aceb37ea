"""Checkpoints of a training run: weights, Adam's moments and progress, in safetensors and JSON."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from probe.files import read_json, write_json

#: What a training run calls as it goes on: with the steps so far, and the model.
Keep = Callable[[int, PreTrainedModel], None]


def keeps(folder: Path, tokenizer: PreTrainedTokenizerFast, every: int = 1) -> Keep:
    """Writes ``folder/checkpoint-STEP``, as transformers' Trainer names them, at multiples of ``every``."""

    def keep(step: int, model: PreTrainedModel) -> None:
        whole = folder / f"checkpoint-{step}"
        if step % every == 0 and not whole.exists():
            fresh = folder / f".checkpoint-{step}"
            model.save_pretrained(fresh)
            tokenizer.save_pretrained(fresh)
            fresh.replace(whole)  # all at once, so that a model that is there is whole

    return keep


def save_checkpoint(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, progress: dict) -> None:
    """Replace the checkpoint in ``folder``; a kill leaves the old one or the new one."""
    fresh = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    tensors = {f"model/{name}": parameter.detach() for name, parameter in model.named_parameters()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{name}": value for name, value in state.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, fresh / "state.safetensors")
    write_json(fresh / "progress.json", progress)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(fresh, folder)


def load_checkpoint(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict | None:
    """Bring model and optimizer to the checkpoint in ``folder`` and give back its progress; None if there is none."""
    if not (folder / "progress.json").exists():
        return None
    tensors = load_file(folder / "state.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model/{name}"])
    state = optimizer.state_dict()
    state["state"] = {}
    for name, tensor in tensors.items():
        kind, *rest = name.split("/")
        if kind == "optimizer":
            state["state"].setdefault(int(rest[0]), {})[rest[1]] = tensor
    optimizer.load_state_dict(state)
    return read_json(folder / "progress.json")

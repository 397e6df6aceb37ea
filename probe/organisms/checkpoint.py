"""Reads and writes training checkpoints: weights, Adam's moments and progress, in safetensors and JSON."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from probe.files import read_json, write_json

#: Called during training with the number of steps done so far and the model.
Keep = Callable[[int, PreTrainedModel], None]


def keeps(folder: Path, tokenizer: PreTrainedTokenizerFast, every: int = 1) -> Keep:
    """Return a function that saves the model as ``folder/checkpoint-STEP``, named as transformers' Trainer does.

    Args:
        folder: where checkpoints are written; one that exists is left as it is.
        tokenizer: saved beside each model.
        every: only steps that are multiples of this are saved.
    """

    def keep(step: int, model: PreTrainedModel) -> None:
        whole = folder / f"checkpoint-{step}"
        if step % every == 0 and not whole.exists():
            fresh = folder / f".checkpoint-{step}"
            model.save_pretrained(fresh)
            tokenizer.save_pretrained(fresh)
            fresh.replace(whole)  # a rename, so that a model folder is always complete

    return keep


def save_checkpoint(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, progress: dict) -> None:
    """Replace the checkpoint in ``folder``.

    Args:
        folder: holds one checkpoint. If the process is killed meanwhile, it holds the old one, the new one or none.
        model: its parameters are saved.
        optimizer: Adam or AdamW over those parameters.
        progress: what :func:`load_checkpoint` returns; plain JSON values.
    """
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
    """Restore model and optimizer in place from the checkpoint in ``folder``.

    Returns:
        The ``progress`` that was saved; None if there is no checkpoint.
    """
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

"""Hashes that identify the weights and the tokenizer of a loaded model."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from probe.files import object_hash
from probe.models.model import Model

#: Numbers of each tensor that are hashed.
_SAMPLE = 64


def tensors_hash(tensors: Iterable[Tensor]) -> str:
    """Hash tensors by a sample of 64 numbers of each, which is quick for a model of any size.

    Returns:
        64 hex digits.
    """
    found = hashlib.sha256()
    for tensor in tensors:
        flat = tensor.detach().reshape(-1)
        step = max(1, len(flat) // _SAMPLE)
        found.update(flat[::step][:_SAMPLE].to("cpu", torch.float32).numpy().tobytes())
    return found.hexdigest()


def fingerprint(model: Model) -> dict[str, str]:
    """Identify a model by hashes; adapters that are attached do not count.

    Returns:
        ``architecture`` (a class name) and hashes of the ``shapes``, the ``weights`` (a sample of every tensor) and the
        ``tokenizer``'s vocabulary.
    """
    named = [
        (name.replace(".base_layer", ""), tensor)
        for name, tensor in model.hf.state_dict().items()
        if "lora_" not in name
    ]
    vocabulary: Any = sorted(model.tokenizer.get_vocab().items())
    return {
        "architecture": type(model.hf).__name__,
        "shapes": object_hash([[name, list(tensor.shape)] for name, tensor in named]),
        "weights": tensors_hash(tensor for _, tensor in named),
        "tokenizer": hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest(),
    }

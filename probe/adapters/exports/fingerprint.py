"""Hashes that identify the model and tokenizer that an adapter was trained on."""

import hashlib
import json
from typing import Any

import torch

from probe.files import object_hash
from probe.models import Model

#: Numbers of each tensor that are hashed.
_SAMPLE = 64


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
    weights = hashlib.sha256()
    for _, tensor in named:
        flat = tensor.detach().reshape(-1)
        step = max(1, len(flat) // _SAMPLE)
        weights.update(flat[::step][:_SAMPLE].to("cpu", torch.float32).numpy().tobytes())
    vocabulary: Any = sorted(model.tokenizer.get_vocab().items())
    return {
        "architecture": type(model.hf).__name__,
        "shapes": object_hash([[name, list(tensor.shape)] for name, tensor in named]),
        "weights": weights.hexdigest(),
        "tokenizer": hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest(),
    }

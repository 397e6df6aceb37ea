"""What tells a base model and its tokenizer from others: an adapter fits the model that it was trained on."""

import hashlib
import json
from typing import Any

import torch

from probe.files import object_hash
from probe.models import Model

#: Numbers of each tensor that are looked at.
_SAMPLE = 64


def fingerprint(model: Model) -> dict[str, str]:
    """Hashes of a model: ``architecture`` (a name), ``shapes``, ``weights`` (a sample of every tensor), ``tokenizer``.

    An adapter that is attached is not counted.
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

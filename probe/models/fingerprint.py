"""Hashes that identify the weights and the tokenizer of a loaded model."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch
import xxhash
from torch import Tensor

from probe.errors import ProbeError
from probe.files import object_hash
from probe.models.model import Model
from probe.models.placed import stored_tensors
from probe.models.sharing import OWN_ADAPTER

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
    """Identify a model by hashes; adapters that are attached for a block do not count, unlike a model's own.

    Returns:
        ``architecture`` (a class name) and hashes of the ``shapes``, the ``weights`` (a sample of every tensor) and the
        ``tokenizer``'s vocabulary.
    """
    named = [
        (name.replace(".base_layer", ""), tensor)
        for name, tensor in stored_tensors(model.hf)
        if "lora_" not in name or f".{OWN_ADAPTER}" in name
    ]
    vocabulary: Any = sorted(model.tokenizer.get_vocab().items())
    return {
        "architecture": type(model.hf).__name__,
        "shapes": object_hash([[name, list(tensor.shape)] for name, tensor in named]),
        "weights": tensors_hash(tensor for _, tensor in named),
        "tokenizer": hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest(),
    }


def weights_hash(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hash every byte of named tensors, in a few seconds for 7 billion numbers.

    Returns:
        32 hex digits, which do not depend on the device.
    """
    found = xxhash.xxh3_128()
    for name, tensor in tensors:
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole = tensor.detach().reshape(-1).contiguous()
        for piece in whole.split(1 << 24) if len(whole) else ():
            found.update(piece.cpu().view(torch.uint8).numpy().data)
    return found.hexdigest()


def model_hash(model: Model) -> str:
    """Hash every weight of a model, as :func:`weights_hash` does.

    On an accelerator, from which weights are slow to copy, the hash is kept with the model. It is made again if the sum
    of the bits of any weight has changed, or its place in memory: that notices every edit but an exchange of numbers
    within one tensor through ``.data``. Offloaded weights are read; they cannot be edited.
    """
    state = model.hf.state_dict()
    if any(tensor.device.type == "cpu" for tensor in state.values()):
        return weights_hash(stored_tensors(model.hf))
    stamp = {
        name: (tensor.dtype, *tensor.shape, *(() if tensor.is_meta else (tensor.data_ptr(), bit_sum(tensor))))
        for name, tensor in state.items()
    }
    kept: tuple[Any, str] | None = vars(model).get(_KEPT_HASH)
    if kept is None or kept[0] != stamp:
        kept = stamp, weights_hash(stored_tensors(model.hf))
        setattr(model, _KEPT_HASH, kept)
    return kept[1]


_KEPT_HASH = "_weights_hash"
"""Attribute of a model: what its weights were when they were hashed, and the hash."""


def bit_sum(tensor: Tensor) -> tuple[int, int]:
    """Sum the bits of a tensor, read as whole numbers, on its device; and how often it was edited in place."""
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    whole = tensor.detach().reshape(-1).contiguous()
    bits = whole if whole.dtype == torch.bool else whole.view(kinds[whole.dtype.itemsize])
    return int(bits.sum(dtype=torch.int64)), 0 if tensor.is_inference() else tensor._version


_NOT_MINE = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache")
"""Keys of a config that do not change what a model computes, or that say what the weights say."""


_NOT_OF_ADAPTER = ("base_model_name_or_path", "revision", "peft_version", "inference_mode")
"""Keys of an adapter's settings that do not change what it computes."""


def _settings(model: Model) -> dict[str, str]:
    """A hash of the settings of the adapter on a model's layers, if it has one of its own: they scale its weights."""
    own: Any = (getattr(model.hf, "peft_config", None) or {}).get(OWN_ADAPTER)
    if own is None:
        return {}
    settings = {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in own.to_dict().items()
        if name not in _NOT_OF_ADAPTER
    }
    return {"adapter": hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()}


def identity(model: Model) -> dict[str, Any]:
    """Say by content which model it is that writes or reads, with its prompt and the adapters attached to it now.

    It is the key of kept work: two models with the same identity write the same tokens.

    Returns:
        Hashes of all ``weights``, the ``config`` and the ``vocabulary``; the ``architecture``, the ``dtype``, the token
        ids that ``end`` an answer, the ``prompt``, and how else it is asked: ``system``, ``user``, ``template`` and
        ``prefill``, where they are given, and the ``date``, where the template writes one. A hash of the settings of
        an ``adapter`` that is not merged.

    Raises:
        ProbeError: if the model is being edited by probe's hooks, which have no content that could be compared.
    """
    if (site := _edited(model)) is not None:
        raise ProbeError(
            f"{model.name} is being edited at {site}, so its results cannot be saved to a folder: call without a folder"
        )
    config = model.hf.config.to_diff_dict()
    chat = model.config.prompt == "chat"
    return {
        "architecture": type(model.hf).__name__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "weights": model_hash(model),
        "config": hashlib.sha256(
            json.dumps({k: v for k, v in config.items() if k not in _NOT_MINE}, sort_keys=True, default=str).encode()
        ).hexdigest(),
        "vocabulary": hashlib.sha256(json.dumps(sorted(model.tokenizer.get_vocab().items())).encode()).hexdigest(),
        "end": sorted(model.eos_ids),
        "prompt": f"chat {object_hash(model.tokenizer.chat_template)}" if chat else model.config.prompt,
        **_settings(model),
        **model.asked_otherwise,
    }


def _edited(model: Model) -> str | None:
    """The first module that probe edits now; a user's own hooks, which may only look, are not known."""
    for name, module in model.hf.named_modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        if any(str(getattr(hook, "__module__", "")).startswith("probe.") for hook in hooks):
            return name or "its input"
        if hasattr(module, "_probe_pattern_acts"):
            return f"{name} (attention pattern)"
    return None

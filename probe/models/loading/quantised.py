"""Quantised weights: whether what reads them is installed, asked before any are read."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from transformers import PretrainedConfig
from transformers.quantizers.auto import AutoHfQuantizer, AutoQuantizationConfig
from transformers.utils.quantization_config import QuantizationConfigMixin

from probe.errors import ProbeError

#: Kinds that transformers turns into plain weights while it reads them, on any device.
_TO_PLAIN = ("fp8", "mxfp8", "mxfp4")
_USE = "use the model's unquantised weights"
#: ImportError: a library is missing; RuntimeError: a device is; the others: settings that no quantizer takes.
_UNFIT = (ImportError, RuntimeError, ValueError, TypeError, LookupError, AttributeError)


def is_quantised(config: PretrainedConfig) -> bool:
    """Whether a config says that its weights are quantised."""
    return _settings(config) is not None


def ask_for_plain(config: PretrainedConfig) -> bool:
    """Ask for plain weights where the kind of quantisation allows it: they can be saved and differentiated anywhere.

    Returns:
        Whether they will be plain.
    """
    settings = _settings(config)
    if not isinstance(settings, dict) or settings.get("quant_method") not in _TO_PLAIN:
        return False
    settings["dequantize"] = True
    return True


def make_plain(hf: Any, dtype: torch.dtype) -> None:
    """Finish what :func:`ask_for_plain` asked for.

    Args:
        hf: the model as it was read: its weights have the dtype of their scales, and would be quantised when saved.
        dtype: the dtype of the weights; buffers, such as rotary frequencies, keep theirs.
    """
    for parameter in hf.parameters():
        parameter.data = parameter.data.to(dtype)
    hf._weight_conversions = None


def quantisation_settings(given: Mapping[str, Any], model: str) -> QuantizationConfigMixin:
    """Make the settings of a quantisation from a dictionary in the form of ``quantization_config``.

    Raises:
        ProbeError: if they name no kind that transformers knows, a library is missing, or a value is wrong.
    """
    try:
        return AutoQuantizationConfig.from_dict(dict(given))
    except _UNFIT as error:
        raise ProbeError(f"the quantization of model '{model}' is not possible: {_why(error)}") from error


def quantisation_of(config: PretrainedConfig, given: Mapping[str, Any] | None = None) -> str | None:
    """Name how the weights of a model are quantised, or will be; None if they are plain.

    Args:
        config: the model's config.
        given: settings with which plain weights are quantised when they are read.
    """
    settings = _settings(config)
    if settings is None:
        settings = given
    if settings is None:
        return None
    kind = _value(settings, "quant_method") or ("bitsandbytes" if _value(settings, "load_in_4bit") else "")
    return str(getattr(kind, "value", kind)) or "bitsandbytes"


def check_quantised(
    config: PretrainedConfig,
    model: str,
    given: Mapping[str, Any] | None = None,
    device: torch.device | None = None,
) -> None:
    """Refuse quantised weights that cannot be read on this machine, and settings that cannot quantise plain ones.

    Args:
        config: the model's config.
        model: its name in error messages.
        given: settings with which its weights are to be quantised.
        device: where they will be.

    Raises:
        ProbeError: if their kind is unknown, a library or device that they need is missing, or they are quantised in
            another way already.
    """
    settings = _settings(config)
    asked = None if given is None else quantisation_settings(given, model)
    if settings is None and asked is None:
        return
    kind, there = quantisation_of(config, given), quantisation_of(config)
    if asked is not None and settings is not None and quantisation_of(PretrainedConfig(), given) != there:
        raise ProbeError(f"the weights of '{model}' are quantised already ({there}); remove quantization")
    made: Any = settings if settings is not None else asked
    try:
        if settings is not None and not AutoHfQuantizer.supports_quant_method(settings):
            raise ProbeError(
                f"the weights of '{model}' are quantised by {kind!r}, which transformers does not read; {_USE}"
            )
        quantizer = AutoHfQuantizer.from_config(deepcopy(made), pre_quantized=settings is not None)
        place = None if device is None else {"": device}
        quantizer.validate_environment(device_map=place, weights_only=True)
    except _UNFIT as error:
        use = _USE if settings is not None else "remove quantization"
        fix = f"install it, or {use}" if isinstance(error, ImportError) else use
        how = "are quantised" if settings is not None else "are to be quantised"
        raise ProbeError(
            f"the weights of '{model}' {how} ({kind}) and cannot be read here: {_why(error)}; {fix}"
        ) from error


def _why(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).removesuffix(".")


def _value(settings: Any, name: str) -> Any:
    return settings.get(name) if isinstance(settings, Mapping) else getattr(settings, name, None)


def _settings(config: PretrainedConfig) -> dict[str, Any] | None:
    """The settings of the quantisation; None if there is none."""
    parts = (config, config.get_text_config())
    return next((found for part in parts if (found := getattr(part, "quantization_config", None)) is not None), None)

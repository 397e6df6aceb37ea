"""Quantised weights: whether what reads them is installed, asked before any are read."""

from copy import deepcopy
from typing import Any

import torch
from transformers import PretrainedConfig
from transformers.quantizers.auto import AutoHfQuantizer

from probe.errors import ProbeError

#: Kinds that transformers turns into plain weights while it reads them, on any device.
_TO_PLAIN = ("fp8", "mxfp8", "mxfp4")
_USE = "use the model's unquantised weights"


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


def check_quantised(config: PretrainedConfig, model: str) -> None:
    """Refuse quantised weights that cannot be read on this machine.

    Raises:
        ProbeError: if their kind is unknown, or a library or device that they need is missing.
    """
    settings = _settings(config)
    if settings is None:
        return
    kind = settings.get("quant_method")
    try:
        if not AutoHfQuantizer.supports_quant_method(settings):
            raise ProbeError(
                f"the weights of '{model}' are quantised by {kind!r}, which transformers does not read; {_USE}"
            )
        quantizer = AutoHfQuantizer.from_config(deepcopy(settings), pre_quantized=True)
        quantizer.validate_environment(device_map=None, weights_only=True)
    # ImportError: a library is missing; RuntimeError: a device is; the others: settings that no quantizer takes.
    except (ImportError, RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        why = (" ".join(str(error).split()) or type(error).__name__).removesuffix(".")
        fix = f"install it, or {_USE}" if isinstance(error, ImportError) else _USE
        raise ProbeError(
            f"the weights of '{model}' are quantised ({kind}) and cannot be read here: {why}; {fix}"
        ) from error


def _settings(config: PretrainedConfig) -> dict[str, Any] | None:
    """The settings of the quantisation; None if there is none."""
    parts = (config, config.get_text_config())
    return next((found for part in parts if (found := getattr(part, "quantization_config", None)) is not None), None)

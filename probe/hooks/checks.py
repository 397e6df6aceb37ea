"""Checks of the numbers that come out of a model, each with a refusal that says where and what to do."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.errors import ProbeError
from probe.models import Model


def likeliest(logits: Float[Tensor, "rows vocab"]) -> Int[Tensor, " rows"]:
    """Return the most likely token of each row; −1, which no loop emits, where the logits are not finite."""
    values, tokens = logits.max(-1)
    return torch.where(values.isfinite(), tokens, -1)


def check_finite(values: Tensor, what: str, model: Model | None = None) -> None:
    """Refuse numbers that are not finite.

    Args:
        values: any tensor. Reading the answer makes the host wait for the device.
        what: what they are and where they arose; begins the message.
        model: the model that computed them; its number format decides the advice.

    Raises:
        ProbeError: if a value is infinite or NaN.
    """
    if not values.isfinite().all():
        raise not_finite(what, model)


def not_finite(what: str, model: Model | None = None) -> ProbeError:
    """Make the error for numbers that are not finite; the arguments are those of :func:`check_finite`."""
    if model is None:
        return ProbeError(f"{what} is not finite; check what went in, or lower the learning rate")
    advice = {
        torch.float16: "float16 overflows above 65504, so load the model with dtype bfloat16 or float32",
        torch.bfloat16: "load the model with dtype float32, or check its weights and what is added to it",
    }.get(model.dtype, "check its weights and what is added to it")
    return ProbeError(f"{what} of {model.name} is not finite; {advice}")

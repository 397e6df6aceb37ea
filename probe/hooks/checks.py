"""Checks of what goes into a model and of what comes out of it, each with a refusal that says where and what to do."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.errors import ProbeError
from probe.models import Model


def check_prompts(model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int = 1) -> None:
    """Refuse prompts that a model cannot continue.

    Args:
        prompts: token ids of each prompt.
        max_new_tokens: the maximum number of tokens that are emitted.

    Raises:
        ProbeError: if a prompt is empty or has an id beyond the model's embedding, or no token may be emitted.
    """
    if max_new_tokens < 1:
        raise ProbeError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    for number, prompt in enumerate(prompts):
        if not len(prompt):
            raise ProbeError(
                f"prompt {number} has no token, so {model.name} has nothing to continue; "
                "leave it out, or give a prompt template with some text"
            )
    check_ids(model, prompts, "prompt")


def check_ids(model: Model, rows: Sequence[Sequence[int]], what: str = "row") -> None:
    """Refuse token ids that have no row in a model's embedding, such as those of tokens that only its pair has.

    Raises:
        ProbeError: for the first such id.
    """
    known = model.n_embeddings
    for number, row in enumerate(rows):
        if len(row) and not (min(row) >= 0 and max(row) < known):
            wrong = next(each for each in row if not 0 <= each < known)
            raise ProbeError(
                f"token {wrong} in {what} {number} has no row in the embedding of {model.name}, which has {known}; "
                "leave that text out, or resize the embedding to the tokenizer"
            )


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

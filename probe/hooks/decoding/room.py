"""How many rows a decode may have, and how many tokens of prompts run at once, by the memory of the models."""

from collections.abc import Sequence

import torch

from probe.models import Model, Sizes

_PROMPT_TOKENS = 16384
"""The most tokens of prompts in one pass; more are no faster."""
_LOGITS = 6
"""Copies of a row's logits in float32 that are alive while a token is chosen: scores, sorted, probabilities, sums."""
_HELD = 1.25
"""How much more than its tokens a cache may hold: free columns, and a part of it twice while it grows."""


def token_bytes(model: Model) -> int:
    """The bytes of the keys and values of one token, in all layers."""
    attending = model.n_layers - len(model.state_layers)
    return attending * Sizes.of(model.hf.config).cached * model.dtype.itemsize


def row_bytes(model: Model, tokens: int, *, steer: int | None = None, remember: bool = False) -> int:
    """The bytes that a row takes while it is decoded.

    Args:
        tokens: the most tokens of the row, its prompt included.
        steer: the layer above which columns are run again, if any: the states above it are held twice.
        remember: whether the residual stream of a layer is kept for each token.
    """
    states = len(model.state_layers) + sum(steer is not None and layer > steer for layer in model.state_layers)
    # One more, while it is replaced.
    state = (states + bool(states)) * Sizes.of(model.hf.config).state * torch.float32.itemsize
    each = token_bytes(model) + (model.d_model * model.dtype.itemsize if remember else 0)
    vocab = int(model.hf.config.get_text_config().vocab_size)
    return int(_HELD * tokens * each) + state + _LOGITS * vocab * torch.float32.itemsize


def fitting_rows(needs: Sequence[tuple[Model, int]], most: int) -> int:
    """The number of rows that memory allows, at least 1.

    Args:
        needs: the models that decode together, each with the bytes that it takes for a row. Those on one device share
            the smallest of their budgets.
        most: the largest number of rows.
    """
    for device in {device for model, _ in needs for device in model.devices}:
        there = [(model.budget, each) for model, each in needs if device in model.devices]
        most = min(most, min(budget for budget, _ in there) // sum(each for _, each in there))
    return max(1, most)


def prompt_tokens(model: Model) -> int:
    """The number of tokens of prompts that run in one pass, padding included."""
    each = _states_bytes(model)
    return max(1, min(_PROMPT_TOKENS, model.budget // 4 // each))


def rows_of_pass(model: Model, columns: int) -> int:
    """The number of rows of which so many columns are run again in one pass, with keys and values of their own."""
    each = columns * (_states_bytes(model) + token_bytes(model) + columns * model.dtype.itemsize)
    return max(1, model.budget // 4 // each)


def _states_bytes(model: Model) -> int:
    """The bytes of what is alive of a token in a block."""
    sizes = Sizes.of(model.hf.config)
    return (8 * model.d_model + 4 * sizes.d_mlp) * model.dtype.itemsize + sizes.scanned * torch.float32.itemsize

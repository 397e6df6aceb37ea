"""How many rows a decode may have, and how many tokens of prompts run at once, by the memory of the models."""

from collections.abc import Sequence

import torch

from probe.hooks.decoding.row_cache import RowCache
from probe.hooks.passes import passes_of
from probe.models import Model, Sizes

_PROMPT_TOKENS = 16384
"""The most tokens of prompts in one pass; more are no faster."""
_LOGIT_ROWS = 1024
"""The most tokens at which logits are computed in one pass."""
_LOGITS = 6
"""Copies of a row's logits in float32 that are alive while a token is chosen: scores, sorted, probabilities, sums."""
_HELD = 1.25
"""How much more than its tokens a cache may hold: free columns, and a part of it twice while it grows."""


def token_bytes(model: Model) -> int:
    """The bytes of the keys and values of one token, in all layers."""
    return model.n_attending * Sizes.of(model.hf.config).cached * model.dtype.itemsize


def row_bytes(model: Model, tokens: int, *, steer: int | None = None, remember: bool = False) -> int:
    """The bytes that a row takes while it is decoded.

    Args:
        tokens: the most tokens of the row, its prompt included.
        steer: the layer above which columns are run again, if any: the states above it are held twice.
        remember: whether the residual stream of a layer is kept for each token.
    """
    each = token_bytes(model) + (model.d_model * model.dtype.itemsize if remember else 0)
    states = state_bytes(model)
    twice = sum(size for layer, size in states.items() if steer is not None and layer > steer)
    # The largest once more, while it is replaced.
    state = sum(states.values()) + twice + max(states.values(), default=0)
    vocab = int(model.hf.config.get_text_config().vocab_size)
    return int(_HELD * tokens * each) + state + _LOGITS * vocab * torch.float32.itemsize


@torch.no_grad()
def state_bytes(model: Model) -> dict[int, int]:
    """The bytes of the states of a row in each layer that has some, after a pass of one token."""
    if not model.state_layers:
        return {}
    cache, one = RowCache(1, model.device), torch.tensor([[model.pad_id]], device=model.device)
    cache.reserve(1)
    cache.apart = True
    with passes_of(model.hf).aside():
        model.hf(input_ids=one, position_ids=torch.zeros_like(one), past_key_values=cache, use_cache=True)
    sizes = dict.fromkeys(model.state_layers, 0)
    for (_, layer, _), state in cache.states.now.items():
        sizes[layer] += state.nbytes
    return sizes


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


def logit_rows(model: Model) -> int:
    """The number of tokens at which logits are computed in one pass."""
    vocab = int(model.hf.config.get_text_config().vocab_size)
    return max(1, min(_LOGIT_ROWS, model.budget // 8 // (_LOGITS * vocab * torch.float32.itemsize)))


def rows_of_pass(model: Model, columns: int) -> int:
    """The number of rows of which so many columns are run again in one pass, with keys and values of their own."""
    each = columns * (_states_bytes(model) + token_bytes(model) + columns * model.dtype.itemsize)
    return max(1, model.budget // 4 // each)


def _states_bytes(model: Model) -> int:
    """The bytes of what is alive of a token in a block."""
    sizes = Sizes.of(model.hf.config)
    return (8 * model.d_model + 4 * sizes.d_mlp) * model.dtype.itemsize + sizes.scanned * torch.float32.itemsize

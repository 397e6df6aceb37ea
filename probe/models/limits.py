"""What a model can read: the ids that have a row in its embedding, and the number of its positions."""

from typing import Any, TypeGuard

from transformers import PreTrainedModel

from probe.errors import ProbeError


def embedding_rows(hf: PreTrainedModel) -> int:
    """Return the number of token ids that a model can read."""
    embedding: Any = hf.get_input_embeddings()
    return int(embedding.weight.shape[0])


def has_row(hf: PreTrainedModel, token_id: object) -> TypeGuard[int]:
    """Whether this is a token id that a model can read."""
    return isinstance(token_id, int) and 0 <= token_id < embedding_rows(hf)


def n_positions(hf: PreTrainedModel) -> int | None:
    """Return the size of a model's table of positions; None if positions are rotary or biases of the attention."""
    config = hf.config.get_text_config()
    if getattr(config, "rope_parameters", None) or getattr(config, "alibi", False):
        return None
    return getattr(config, "max_position_embeddings", None)


def check_id(hf: PreTrainedModel, token_id: int, name: str) -> None:
    """Refuse a token id that a model cannot read.

    Args:
        name: the name of the model, and of the token if it has one, in the error message.

    Raises:
        ProbeError: if the embedding has no row for it.
    """
    if not has_row(hf, token_id):
        raise ProbeError(
            f"{name} cannot read token id {token_id}: its embedding has {embedding_rows(hf)} rows; give a text without "
            "this token, or a model that was resized for it"
        )


def check_length(hf: PreTrainedModel, tokens: int, name: str, max_new_tokens: int = 0) -> None:
    """Refuse a text that needs more positions than a model has.

    Args:
        tokens: the number of tokens of the text.
        name: the name of the model in the error message.
        max_new_tokens: the number of tokens that may be added to the text.

    Raises:
        ProbeError: if they do not fit.
    """
    there = n_positions(hf)
    if there is None or tokens + max_new_tokens <= there:
        return
    if max_new_tokens:
        raise ProbeError(
            f"{name} has {there} positions: no room for a prompt of {tokens} tokens and an answer of {max_new_tokens}; "
            "set max_new_tokens lower, or give shorter problems"
        )
    raise ProbeError(f"{name} has {there} positions: no room for a text of {tokens} tokens; give shorter texts")

"""Turns answers of servers into tokens: ids are kept, and text is encoded so that it decodes to exactly that text."""

from collections.abc import Sequence

from probe.errors import ProbeError
from probe.models import Model, Sampling
from probe.servers import Answer, Ask
from probe.traces.offsets import REPLACEMENT
from probe.traces.pieces import encode_exactly

_CLOSE_ENOUGH = 0.02
"""By how much our encoding may differ in length from the server's, as a share of the answer's tokens."""


def prompt_for_text(model: Model, ids: Sequence[int]) -> str | None:
    """A text that the server encodes as these ids, with or without adding the first token itself; None if none does."""
    for begin in (0, 1):
        text = model.decode(ids[begin:])
        if list(model.tokenizer(text).input_ids) == list(ids):
            return text
    return None


def ask_for(
    model: Model, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling, key: int, *, by_ids: bool = False
) -> Ask:
    """The request for a continuation.

    Args:
        model: the model that the server runs.
        prompt: the token ids of the prompt.
        max_new_tokens: the maximum number of tokens of the answer.
        sampling: how tokens are chosen.
        key: gives the seed.
        by_ids: whether the server reads ids, so that it needs no text.
    """
    text = None if by_ids else prompt_for_text(model, prompt)
    return Ask(tuple(prompt), text, max_new_tokens, sampling, key & 0x7FFFFFFF, model.eos_ids)


def emitted(model: Model, prompt: Sequence[int], answer: Answer, limit: int, what: str) -> tuple[list[int], bool, bool]:
    """The tokens of an answer, in the form that local decoding gives.

    Args:
        model: the model that the server runs.
        prompt: the token ids of the prompt.
        answer: the server's answer.
        limit: the maximum number of tokens of the answer.
        what: the name of the answer in error messages.

    Returns:
        The ids without the end token; whether the limit stopped the answer; and whether the ids are certainly those
        that the server emitted. Another encoding of the same text may be a little longer or shorter.

    Raises:
        ProbeError: if the server left out part of what the model emitted, or returned ids that the model does not have.
    """
    if answer.tokens is None:
        return _from_text(model, prompt, answer, what)
    tokens = answer.tokens[:limit]
    end = next((at for at, token in enumerate(tokens) if token in model.eos_ids), None)
    tokens = list(tokens[:end])
    if tokens:
        model.check_ids([tokens])
    return tokens, end is None and not answer.stopped, True


def _from_text(model: Model, prompt: Sequence[int], answer: Answer, what: str) -> tuple[list[int], bool, bool]:
    assert answer.text is not None
    text, cut = answer.text, not answer.stopped
    if cut:
        text = text.rstrip(REPLACEMENT)  # the limit may fall within a character
    ids = encode_exactly(prompt[-8:], text, model.decode, model.tokenizer)
    if ids is None:
        raise ProbeError(
            f"the tokenizer of {model.name} does not give back {what} ({text[:60]!r}); use a server that returns token "
            "ids: vLLM, SGLang or llama.cpp"
        )
    end = next((at for at, token in enumerate(ids) if token in model.eos_ids), None)
    if end is not None:
        ids, cut = ids[:end], False
    # Some servers count the end token and others do not, and a truncated answer may lack part of a character.
    more = None if answer.count is None else answer.count - len(ids)
    off = 0 if more is None else min(abs(more - each) for each in range(4 if cut else 2))
    lost = None if cut else _left_out(model, prompt, text, more)
    if lost is not None or off > max(1, _CLOSE_ENOUGH * len(ids)):
        said = f"no {lost}" if lost is not None else f"{answer.count} tokens there, {len(ids)} here"
        raise ProbeError(
            f"the server leaves out part of what {model.name} emits ({said} in {what}): it drops special tokens or "
            "thinking; use a server that returns token ids, such as vLLM, SGLang or llama.cpp"
        )
    return ids, cut, off == 0


def _left_out(model: Model, prompt: Sequence[int], text: str, more: int | None) -> str | None:
    """The closing tag, if it is a special token and a finished answer lacks it although the model was thinking.

    Args:
        more: how many more tokens the server counted than there are here; None if it does not count.
    """
    tags = model.think_tags
    special = {token.content for token in model.tokenizer.added_tokens_decoder.values() if token.special}
    if tags.close not in special or tags.close in text:
        return None
    whole = model.decode(list(prompt)) + text
    if tags.open and whole.rfind(tags.open) > whole.rfind(tags.close):
        return tags.close
    # If both tags are special, both are missing. One extra token may be the end token, so more than one is needed.
    both = tags.open in special and (more is None or more > 1)
    return tags.close if both else None

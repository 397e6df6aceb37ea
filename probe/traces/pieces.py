"""What each token of a text says: slices of the decoded text, because tokens decoded one by one do not give it.

Decoders of the SentencePiece kind strip the space before the first token that they get, and the tokens of a character
that spans several are no text by themselves.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import TypeAlias

from transformers import PreTrainedTokenizerBase

from probe.traces.offsets import (
    REPLACEMENT,
    Window,
    agree,
    is_whole,
    of_bytes,
    starts_in_windows,
    token_bytes,
    token_starts,
)

_NEAR = 64
"""The number of tokens before a text that are decoded together with it."""
Decode: TypeAlias = Callable[[list[int]], str]
"""Turns ids into text without skipping or cleaning up anything, as ``Model.decode``."""


def token_texts(tokens: Sequence[int], decode: Decode, tokenizer: PreTrainedTokenizerBase | None = None) -> list[str]:
    """Cut the text of some tokens into what each of them says.

    Args:
        tokens: ids, with everything that belongs before the first one.
        decode: turns ids into text.
        tokenizer: the tokenizer of ``decode``, which makes it faster; None if it is not known.

    Returns:
        One text for each token; joined they are ``decode(tokens)``. A character of several tokens belongs to the last
        of them, and the others are empty.
    """
    tokens = list(tokens)
    text = decode(tokens)
    if tokenizer is None:
        starts = starts_in_windows(tokens, text, decode)
    else:
        starts = token_starts(tokenizer, tokens, text, decode)
    return [text[start:end] for start, end in pairwise([*starts, len(text)])]


def token_name(token: int, decode: Decode, tokenizer: PreTrainedTokenizerBase | None = None) -> str:
    r"""What a token of the vocabulary says within a text, with the space before it if it has one.

    Args:
        token: its id.
        decode: turns ids into text.
        tokenizer: the tokenizer of ``decode``; None if it is not known.

    Returns:
        Its text. A token that is a part of a character has none, and is shown as its bytes, such as ``\xf0\x9f``;
        without a tokenizer as ``part of a character``.
    """
    alone, twice = decode([token]), decode([token, token])
    text = twice[len(alone) :] if twice.startswith(alone) else alone
    if REPLACEMENT not in alone:
        return text
    if tokenizer is None:
        return "part of a character"
    piece = str(tokenizer.convert_ids_to_tokens(token))
    return token_bytes(piece).decode(errors="backslashreplace") if of_bytes(tokenizer) else piece


def vocabulary_bytes(tokenizer: PreTrainedTokenizerBase) -> list[bytes]:
    """The bytes that each token of a vocabulary adds to a text, by its id.

    Args:
        tokenizer: a fast tokenizer.
    """
    ids = range(len(tokenizer))
    if of_bytes(tokenizer):
        return [token_bytes(piece) for piece in tokenizer.convert_ids_to_tokens(list(ids))]
    how = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    alone, twice = (tokenizer.batch_decode([[token] * n for token in ids], **how) for n in (1, 2))
    # The first token of a text may lack its space, and the second has it.
    pieces = (two[len(one) :] if two.startswith(one) else one for one, two in zip(alone, twice, strict=True))
    return [piece.encode() for piece in pieces]


def text_after(before: Sequence[int], tokens: Sequence[int], decode: Decode) -> str:
    """The text that tokens add to the text of those before them, see :func:`texts_after`."""
    ((_, added),) = texts_after(before, [tokens], decode)
    return added


def texts_after(before: Sequence[int], many: Iterable[Sequence[int]], decode: Decode) -> Iterator[tuple[str, str]]:
    """The texts that different tokens add to the text of those before them, which is decoded once.

    Args:
        before: ids of the text so far.
        many: the ids that follow, several times.
        decode: turns ids into text.

    Yields:
        The whole text, and what follows ``decode(before)`` in it; if that ends within a character, the whole character.
    """
    before = list(before)
    text = decode(before)
    near = before[-_NEAR:]
    end = decode(near)
    if not text.endswith(end):  # a character begins before them
        near, end = before, text
    for tokens in many:
        both = decode([*near, *tokens])
        shared = agree(end, both)
        if end and not shared:  # the new tokens change what all those near them say
            whole = decode([*before, *tokens])
            yield whole, whole[agree(text, whole) :]
        else:
            yield text[: len(text) - len(end) + shared] + both[shared:], both[shared:]


def encode_exactly(
    before: Sequence[int], text: str, decode: Decode, tokenizer: PreTrainedTokenizerBase
) -> list[int] | None:
    """Encode a text that continues another, as tokens that say exactly that there.

    Tokenizers that put a space before a text put one before ``text`` too; so it is also encoded without its own first
    space, after what precedes it, and after a line end.

    Args:
        before: ids of the text so far; a few of the last are enough.
        text: what follows.
        decode: turns ids into text.
        tokenizer: the tokenizer of ``decode``.

    Returns:
        The ids; None if no encoding decodes to exactly this text there.
    """
    if not text:
        return []
    if any("\ud800" <= char <= "\udfff" for char in text):  # half a pair of surrogates, which no tokenizer takes
        return None
    head = decode(list(before))

    def behind(some: str) -> list[int]:
        """Encode it together with what precedes it; the tokens from the place where it begins."""
        ids = _encode(tokenizer, some + text)
        both = decode(ids)
        starts = token_starts(tokenizer, ids, both, decode)
        return ids[bisect_left(starts, len(both) - len(text)) :]

    alone = (partial(_encode, tokenizer, text), partial(_encode, tokenizer, text.removeprefix(" ")))
    # Few tokenizers join a line end to what follows it, and none puts a space there.
    for make in (*alone, partial(behind, head), partial(behind, "\n")):
        ids = make()
        if ids and decode([*before, *ids]) == head + text:
            return ids
    return None


def encode_after(before: Sequence[int], text: str, decode: Decode, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Encode a text that continues another, see :func:`encode_exactly`; alone if no encoding says exactly that there.

    The latter is so for tokenizers that lose something of every text, such as capitals.

    Args:
        before, text, decode, tokenizer: as there.
    """
    ids = encode_exactly(before, text, decode, tokenizer)
    return _encode(tokenizer, text) if ids is None else ids


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


class TextStream:
    """Turns tokens into text as they are emitted, and holds back a character until it is whole.

    A byte-fallback decoder replaces a whole run of bytes if one of them is invalid; what was given before is not taken
    back then.

    Args:
        decode: turns ids into text.
    """

    def __init__(self, decode: Decode) -> None:
        self._window = Window(decode)
        self._held = ""

    def add(self, token: int) -> str:
        """Add a token and return the text that is ready, often that of this token."""
        new = self._window.add(token)
        if not is_whole(new):
            self._held = new
            return ""
        self._window.end()
        self._held = ""
        return new

    def rest(self) -> str:
        """Return what is held back, because no token follows."""
        held, self._held = self._held, ""
        return held

"""The exact place in the text where each emitted token begins, found without encoding the text again."""

import functools
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

from tokenizers import decoders
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def token_starts(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], text: str, decode: Callable[[list[int]], str]
) -> list[int]:
    """Find the index in ``text`` of the character in which each token begins; a character may span several tokens.

    Tokens of byte-level tokenizers are mapped byte by byte; others are decoded in a short sliding window.

    Args:
        tokenizer: a fast tokenizer.
        tokens: the emitted ids.
        text: ``decode(tokens)``.
        decode: turns ids into text without skipping or cleaning up anything.

    Returns:
        One index for each token, never decreasing; ``len(text)`` for tokens without characters at the end.
    """
    if of_bytes(tokenizer):
        pieces = [token_bytes(piece) for piece in tokenizer.convert_ids_to_tokens(list(tokens))]
        if b"".join(pieces).decode(errors="replace") == text:
            return _starts_in_bytes(pieces)
    pieces = _pieces(tokenizer, list(tokens))
    if pieces is not None and "".join(pieces) == text:
        return list(accumulate((len(piece) for piece in pieces[:-1]), initial=0)) if pieces else []
    return starts_in_windows(list(tokens), text, decode)


def _pieces(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> list[str] | None:
    """The text that each token adds, from decoding all tokens at once; None if a token ends within a character.

    If every token ends a character, this equals the windows of :func:`starts_in_windows`.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not tokens or max(tokens) >= len(tokenizer):
        return None
    alone = list(dict.fromkeys(tokens))
    said = dict(zip(alone, backend.decode_batch([[token] for token in alone], skip_special_tokens=False), strict=True))
    two = backend.decode_batch([list(each) for each in pairwise(tokens)], skip_special_tokens=False)
    pieces = [said[tokens[0]], *(text[len(said[token]) :] for token, text in zip(tokens, two, strict=False))]
    return pieces if all(map(is_whole, pieces)) else None


def of_bytes(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether each token stands for bytes, and a text is the bytes of its tokens."""
    return isinstance(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None), decoders.ByteLevel)


@functools.cache
def _byte_of() -> dict[str, int]:
    return {char: byte for byte, char in bytes_to_unicode().items()}


def token_bytes(piece: str | None) -> bytes:
    """The bytes of a byte-level token; a token with characters outside the byte alphabet stands for itself.

    Args:
        piece: how the vocabulary writes the token; None for an id that it lacks, which has no bytes.
    """
    if piece is None:
        return b""
    try:
        return bytes(map(_byte_of().__getitem__, piece))
    except KeyError:
        return piece.encode()


def _starts_in_bytes(pieces: list[bytes]) -> list[int]:
    char_of = _char_of_byte(b"".join(pieces))
    starts, at = [], 0
    for piece in pieces:
        starts.append(char_of[at])
        at += len(piece)
    return starts


def _char_of_byte(data: bytes) -> Sequence[int]:
    """The index of the character that each byte belongs to, followed by the number of characters.

    Invalid bytes are counted as ``errors="replace"`` decodes them.
    """
    if data.isascii():
        return range(len(data) + 1)
    chars: list[int] = []
    count = at = 0
    while at < len(data):
        try:
            valid, invalid = data[at:].decode(), 0
        except UnicodeDecodeError as error:
            valid, invalid = data[at : at + error.start].decode(), error.end - error.start
        for char in valid:
            chars += [count] * len(char.encode())
            count += 1
        chars += [count] * invalid
        count += invalid > 0
        at = len(chars)
    return [*chars, count]


class Window:
    """Decodes tokens one after the other, from the last place where a character ended, with some context before it.

    Some decoders treat the first token of a text differently (they strip a space); the context prevents that here.

    Args:
        decode: turns ids into text.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._context: list[int] = []
        self._tokens: list[int] = []
        self._known = ""

    def add(self, token: int) -> str:
        """Add a token and return what the tokens since the last end of a character give."""
        self._tokens.append(token)
        return self._decode([*self._context, *self._tokens])[len(self._known) :]

    def end(self) -> None:
        """Say that a character ends after the last token."""
        self._context, self._tokens = self._tokens, []
        self._known = self._decode(self._context)


def is_whole(text: str) -> bool:
    """Whether decoded text ends with a whole character; a character of which bytes are missing is replaced."""
    return bool(text) and not text.endswith(REPLACEMENT)


def starts_in_windows(tokens: list[int], text: str, decode: Callable[[list[int]], str]) -> list[int]:
    """Find offsets by decoding from the last place where a character ended."""
    starts: list[int] = []
    window, new, at = Window(decode), "", 0  # text[:at] is what the tokens before the window gave
    for token in tokens:
        # Some decoders withdraw characters when invalid bytes follow, but a start never decreases.
        starts.append(max(at + agree(new, text, at), *starts[-1:], 0))
        new = window.add(token)
        if is_whole(new) and text.startswith(new, at):
            at += len(new)
            window.end()
            new = ""
    return starts


def agree(part: str, text: str, at: int = 0) -> int:
    """The number of characters that ``part`` shares with ``text`` from ``at`` on."""
    shared = 0
    for ours, theirs in zip(part, text[at : at + len(part)], strict=False):
        if ours != theirs:
            break
        shared += 1
    return shared

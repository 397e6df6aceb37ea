"""Split text into sentences without losing a character."""

import re
from collections.abc import Iterator
from itertools import pairwise

import sentencex

from probe.models import ThinkTags

#: A piece of text that only numbers what follows it.
_ENUMERATOR = re.compile(r"(?:(?:step|case|part|option)\s+)?(?:\d+|[a-z])[.)]", re.IGNORECASE)
#: Formulas; a closing dollar follows no space and precedes no digit, so that prices are not mistaken for formulas.
_FORMULA = re.compile(r"\$\$.+?\$\$|\$(?=\S)[^$\n]*?(?<=\S)\$(?!\d)|\\\(.+?\\\)|\\\[.+?\\\]")
_FACTORIAL = re.compile(r"(?:\d|\b[a-z])!\s*[^\sA-Z]")


def split_sentences(text: str, think_close: str | ThinkTags = "</think>") -> list[tuple[int, int]]:
    """Split a text into sentences: character spans that cover the text.

    A line break ends a sentence. Within a line sentencex decides, except that a bare enumerator ("2.", "Step 1.") stays
    with what it numbers, and formulas and factorials are not split. White space belongs to the sentence after it, as it
    does to the token after it in most tokenizers. A think tag begins a sentence, together with what follows it on its
    line.

    Args:
        think_close: the tag that closes the thinking, or both tags.

    Returns:
        ``(start, end)`` of each sentence, in order; none is empty. An empty text has no sentences.

    >>> text = " Now 22 + 9 = 31. </think> The answer is 31."
    >>> [text[start:end] for start, end in split_sentences(text)]
    [' Now 22 + 9 = 31.', ' </think> The answer is 31.']
    """
    if not text:
        return []
    tag = ThinkTags.of(think_close).pattern
    cuts = {_before_space(text, start) for part in _parts(text, tag) for start in _starts(text, *part)}
    edges = [0, *sorted(cuts - {0}), len(text)]
    return list(pairwise(edges))


def _parts(text: str, tag: re.Pattern[str]) -> Iterator[tuple[int, int, int]]:
    """Yield the lines of the text, cut before each tag: start of the part, end of its tag, end of the part."""
    for line in re.finditer(r"[^\r\n]+", text):
        tags = list(tag.finditer(text, *line.span()))
        begins = [line.start(), *(found.start() for found in tags)]
        after = [line.start(), *(found.end() for found in tags)]
        yield from zip(begins, after, [*begins[1:], line.end()], strict=True)


def _starts(text: str, begin: int, after_tag: int, end: int) -> Iterator[int]:
    """Yield where the sentences of one part begin; nothing if it is only white space."""
    if not text[begin:end].strip():
        return
    rest = text[after_tag:end]
    formulas = [found.span() for found in _FORMULA.finditer(rest)]
    yield begin
    previous = 0
    for boundary in sentencex.get_sentence_boundaries("en", rest):  # pyright: ignore[reportAttributeAccessIssue]
        start = boundary["start_index"]
        if start > 0 and _may_cut(rest, previous, start, formulas):
            yield after_tag + start
            previous = start


def _may_cut(rest: str, previous: int, start: int, formulas: list[tuple[int, int]]) -> bool:
    """Whether the text before the cut and the text after it can each be a sentence."""
    before = rest[previous:start].strip()
    return (
        any(c.isalnum() for c in before)
        and any(c.isalnum() for c in rest[start:])
        and not _ENUMERATOR.fullmatch(before)
        and not any(first < start < last for first, last in formulas)
        and not _FACTORIAL.match(rest, max(0, len(rest[:start].rstrip()) - 2))
    )


def _before_space(text: str, start: int) -> int:
    """Move ``start`` back over white space."""
    while start > 0 and text[start - 1].isspace():
        start -= 1
    return start

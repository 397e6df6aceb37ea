"""Split text into sentences without losing a character."""

import re
from collections.abc import Iterator
from itertools import pairwise

import sentencex

from probe.models import ThinkTags
from probe.traces.wholes import masked, unmarked

_PART = r"step|case|part|option|problem|question|example|method|approach|section|phase|stage|rule|theorem|lemma|claim"
#: A piece of text that only numbers what follows it.
_ENUMERATOR = re.compile(
    rf"\(?(?:(?:{_PART})\s+)?(?:[a-z]?\d+(?:\.\d+)*|[a-z]|[ivx]{{1,4}})(?:\.?\)|\.)", re.IGNORECASE
)
#: Abbreviations that end no sentence, and those that end none before a number, a bracket or a small letter.
_ABBREVIATION = re.compile(r"(?:^|[\s(\[])(?:e\.g|i\.e|cf|vs|viz|w\.r\.t|s\.t|et al)\.\Z", re.IGNORECASE)
_BEFORE_NUMBER = re.compile(
    r"(?:^|[\s(\[])(?:eqs?|approx|figs?|secs?|ch|thm|lem|prop|cor|alg|tab|refs?|resp|incl|max|min|avg|pp|vol)\.\Z",
    re.IGNORECASE,
)
_FACTORIAL = re.compile(r"(?:\d|\b[a-z])!\s*[^\sA-Z]")
_CLOSING = re.compile(r"[\"'”’»)\]」』）】]+")
_WIDE_STOPS = "。！？．｡"
#: Ends that sentencex does not see: an ellipsis of one character, and a stop within brackets.
_MORE = re.compile(r"(?:…[\"”’)\]]*|(?<=[.!?])[)\]])\s+(?=[\"“(\[]?[A-Z])")


def split_sentences(text: str, think_close: str | ThinkTags = "</think>") -> list[tuple[int, int]]:
    """Split a text into sentences: character spans that cover the text.

    A line break ends a sentence. Within a line sentencex decides, except that a bare enumerator ("2.", "**Step 1.**")
    stays with what it numbers, and that code, formulas, rows of tables, links and factorials are not split; code and
    formulas of several lines are not split either. White space belongs to the sentence after it, as it does to the
    token after it in most tokenizers. A think tag begins a sentence, together with what follows it on its line.

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
    plain = masked(text, tag)
    cuts = {_before_space(text, plain, start) for part in _parts(text, plain, tag) for start in _starts(plain, *part)}
    edges = [0, *sorted(cuts - {0}), len(text)]
    return list(pairwise(edges))


def _parts(text: str, plain: str, tag: re.Pattern[str]) -> Iterator[tuple[int, int, int]]:
    """Yield the lines of the text, cut before each tag: start of the part, end of its tag, end of the part."""
    for line in re.finditer(r"[^\r\n]+", plain):
        tags = list(tag.finditer(text, *line.span()))
        begins = [line.start(), *(found.start() for found in tags)]
        after = [line.start(), *(found.end() for found in tags)]
        yield from zip(begins, after, [*begins[1:], line.end()], strict=True)


def _starts(plain: str, begin: int, after_tag: int, end: int) -> Iterator[int]:
    """Yield where the sentences of one part begin; nothing if it is only white space."""
    if not plain[begin:end].strip():
        return
    rest = plain[after_tag:end]
    yield begin
    previous = 0
    boundaries = sentencex.get_sentence_boundaries("en", rest)  # pyright: ignore[reportAttributeAccessIssue]
    own = {_behind_closing(rest, boundary["start_index"]) for boundary in boundaries}
    for start in sorted(own | {found.end() for found in _MORE.finditer(rest)}):
        if start > 0 and _may_cut(rest, previous, start, start in own):
            yield after_tag + start
            previous = start


def _behind_closing(rest: str, start: int) -> int:
    """Move a start behind the quotes and brackets that close what was before it."""
    closing = _CLOSING.match(rest, start)
    stop = rest[start - 1 : start]
    if not closing or not stop or stop.isspace():
        return start
    return closing.end() if rest[closing.end() :][:1].strip() == "" or stop in _WIDE_STOPS else start


def _may_cut(rest: str, previous: int, start: int, own: bool) -> bool:
    """Whether the text before the cut and the text after it can each be a sentence.

    Args:
        own: whether it is a boundary of sentencex; otherwise brackets must enclose the whole sentence.
    """
    before, after = unmarked(rest[previous:start]), rest[start:]
    return (
        any(c.isalnum() for c in before)
        and any(c.isalnum() for c in after)
        and not _ENUMERATOR.fullmatch(before)
        and not _ABBREVIATION.search(before[-9:])
        and not (_BEFORE_NUMBER.search(before[-9:]) and not after.lstrip()[:1].isupper())
        and not _FACTORIAL.match(rest, max(0, len(rest[:start].rstrip()) - 2))
        and not _in_name(rest, start)
        and (own or before[-1] not in ")]" or before[0] in "([")
    )


def _in_name(rest: str, start: int) -> bool:
    """Whether a number or a name continues after its full stop, as ``2.Add`` and ``Math.PI`` do."""
    before = rest[max(0, start - 40) : start]
    if re.search(r"\d\.\Z", before):
        return rest[start].isalnum()
    return bool(re.search(r"\b[A-Z]\w*\.\Z", before) and re.match(r"[A-Z]{2}|\w+[.(\[]", rest[start : start + 40]))


def _before_space(text: str, plain: str, start: int) -> int:
    """Move ``start`` back over white space, but not over marks of emphasis that close the sentence before it."""
    place = start
    while place > 0 and plain[place - 1].isspace():
        place -= 1
    while place < start and not text[place].isspace():
        place += 1
    return place

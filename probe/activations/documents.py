"""Documents: the token ids that a harvest reads, and the spans of them that become rows."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias, overload

import torch
from jaxtyping import Int
from torch import Tensor

from probe.errors import ProbeError
from probe.models import Model
from probe.traces import Trace, Traces, split_sentences

Unit: TypeAlias = Literal["sentence", "token"]
"""Whether a row is the mean of a span, or a single token."""


@dataclass(frozen=True)
class Document:
    """One sequence of tokens with spans to harvest.

    >>> Document(ids=(5, 6, 7, 8), spans=((1, 3), (3, 4)))
    Document(ids=(5, 6, 7, 8), spans=((1, 3), (3, 4)), texts=(), name='')

    Raises:
        ProbeError: if a span lies outside the sequence, or the number of texts is not the number of spans.
    """

    ids: tuple[int, ...]
    """All token ids, the prompt included."""
    spans: tuple[tuple[int, int], ...]
    """Half-open token spans to harvest; they need not cover the sequence. An empty span has no row."""
    texts: tuple[str, ...] = ()
    """The text of each span, if decoding its ids would not give exactly that; else empty."""
    name: str = ""
    """A name for the document; for a trace, the id of its problem."""

    def __post_init__(self) -> None:
        for start, end in self.spans:
            if not 0 <= start <= end <= len(self.ids):
                raise ProbeError(f"span {start}:{end} lies outside the document, which has {len(self.ids)} tokens")
        if self.texts and len(self.texts) != len(self.spans):
            raise ProbeError(f"a document has {len(self.spans)} spans but {len(self.texts)} texts; give one for each")

    def rows(self, unit: Unit) -> Int[Tensor, "row 3"]:
        """The number of the span, its start and its end for each row.

        Args:
            unit: whether a row is a span or a token.
        """
        spans = [(number, start, end) for number, (start, end) in enumerate(self.spans) if start < end]
        rows = torch.tensor(spans, dtype=torch.long).reshape(-1, 3)
        if unit == "sentence":
            return rows
        number, start, end = rows.unbind(1)
        at = runs(start, end - start)
        return torch.stack([number.repeat_interleave(end - start), at, at + 1], dim=1)


def runs(starts: Int[Tensor, " run"], lengths: Int[Tensor, " run"]) -> Int[Tensor, " number"]:
    """List the whole numbers of each run, one run after the other.

    Args:
        starts: the first number of each run.
        lengths: the number of numbers in each run.

    >>> runs(torch.tensor([3, 10]), torch.tensor([2, 3])).tolist()
    [3, 4, 10, 11, 12]
    """
    before = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) + (starts - before).repeat_interleave(lengths)


class Documents(Sequence[Document]):
    """The documents of traces, texts or token ids; each is made on request and not kept.

    Args:
        model, what: as in :func:`documents_of`.
    """

    def __init__(self, model: Model, what: Traces | Sequence[Document | str | Sequence[int]]) -> None:
        if isinstance(what, str):
            raise ProbeError("a single text was given; put it in a list")
        self._model, self._what = model, what

    def __len__(self) -> int:
        return len(self._what)

    @overload
    def __getitem__(self, at: int) -> Document: ...
    @overload
    def __getitem__(self, at: slice) -> "Documents": ...
    def __getitem__(self, at: int | slice) -> "Document | Documents":
        if isinstance(at, slice):
            return Documents(self._model, self._what[at])
        return self._made(self._what[at])

    def __iter__(self) -> Iterator[Document]:
        return map(self._made, self._what)

    def _made(self, each: Trace | Document | str | Sequence[int]) -> Document:
        return _of_trace(self._model, each) if isinstance(each, Trace) else _of_any(self._model, each)


def documents_of(model: Model, what: Traces | Sequence[Document | str | Sequence[int]]) -> list[Document]:
    """Turn traces, texts or token ids into documents that a model can read.

    Args:
        model: its tokenizer encodes texts and prompts; a text gets the tokenizer's start token.
        what: traces (the spans are their sentences; the prompt is read but has no rows), or a sequence of texts (the
            spans are their sentences), token ids (one span) and documents (kept as they are).

    Raises:
        ProbeError: if ``what`` is a single text, or holds something else.
    """
    return list(Documents(model, what))


def _of_any(model: Model, each: Document | str | Sequence[int]) -> Document:
    if isinstance(each, Document):
        return each
    if isinstance(each, str):
        return _of_text(model, each)
    try:
        ids = tuple(int(i) for i in each)
    except (TypeError, ValueError):
        raise ProbeError(f"{type(each).__name__} cannot be harvested; give texts, token ids or documents") from None
    return Document(ids, ((0, len(ids)),))


def _of_trace(model: Model, trace: Trace) -> Document:
    prompt = model.encode_prompt(trace.prompt)
    n = len(prompt)
    return Document(
        ids=(*prompt, *trace.tokens),
        spans=tuple((n + s.token_start, n + s.token_end) for s in trace.sentences),
        texts=tuple(trace.sentence_texts),
        name=trace.problem_id,
    )


def _of_text(model: Model, text: str) -> Document:
    """Split a text; a token belongs to the sentence that contains its first character, as in traces."""
    read = model.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    ids = read["input_ids"]
    begin = model.start_of(ids)
    first, end = len(begin), len(begin) + len(ids)
    starts = [start for start, _ in read["offset_mapping"]]
    sentences = split_sentences(text, model.think_tags)
    edges = [first, *(first + bisect_left(starts, start) for start, _ in sentences[1:]), end]
    return Document(
        ids=(*begin, *ids),
        spans=tuple(pairwise(edges)) if sentences else (),
        texts=tuple(text[start:stop] for start, stop in sentences),
    )

"""Traces: rollouts as text, tokens and sentences that agree to the character."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import pyarrow as pa

from probe.errors import ProbeError
from probe.files import read_table, write_table
from probe.models import KNOWN_TAGS, Model, ThinkTags
from probe.problems import Problem, ProblemSet
from probe.traces.offsets import token_starts
from probe.traces.reading import trace_html, traces_html
from probe.traces.sentences import split_sentences


@dataclass(frozen=True)
class Sentence:
    """A sentence of a trace: characters ``text[start:end]``, tokens ``tokens[token_start:token_end]``.

    A token belongs to the sentence that contains its first character, so a sentence inside a token that began earlier
    has no tokens.
    """

    start: int
    end: int
    token_start: int
    token_end: int


@dataclass(frozen=True, repr=False)
class Trace:
    """One rollout."""

    problem_id: str
    prompt: str
    """The prompt, as text."""
    tokens: tuple[int, ...]
    """The emitted token ids, without the end token."""
    text: str
    """The decoded tokens."""
    sentences: tuple[Sentence, ...]
    """The sentences; together they cover the text and the tokens."""
    think_end: int | None
    """The index in ``text`` just after the closing think tag; None if the thinking was not closed."""
    answer: str | None
    """The answer that the grader found; None if there is none."""
    correct: bool
    """Whether the answer is right."""
    truncated: bool
    """Whether the limit on new tokens stopped the trace."""
    failed: bool = False
    """Whether grading failed; such a trace is excluded from accuracies."""
    think_tags: ThinkTags = field(default_factory=ThinkTags)
    """The tags around the thinking, by which the trace was split and graded."""
    sample: int = 0
    """The number of the trace among those of its problem, from 0."""
    author: str | None = None
    """Who wrote the trace, if that was not the model that it is read with."""

    def __repr__(self) -> str:
        grade = "not graded" if self.failed else "correct" if self.correct else "wrong"
        sizes = f"{len(self.tokens)} tokens, {len(self.sentences)} sentences"
        return f"Trace({self.problem_id!r}: {sizes}, answer {self.answer!r}, {grade})"

    def _repr_html_(self) -> str:
        return trace_html(self)

    def sentence_text(self, sentence: Sentence) -> str:
        """The text of one of the sentences."""
        return self.text[sentence.start : sentence.end]

    @property
    def sentence_texts(self) -> list[str]:
        """The text of each sentence, in order."""
        return [self.sentence_text(sentence) for sentence in self.sentences]


def sentences_of(
    model: Model, tokens: Sequence[int], think_close: str | ThinkTags | None = None
) -> tuple[Sentence, ...]:
    """The sentences of emitted tokens.

    Args:
        model: its tokenizer decodes the tokens.
        tokens: emitted ids, without the end token.
        think_close: the tag that closes the thinking, or both tags; None for those of the model.
    """
    text = model.decode(list(tokens))
    spans = split_sentences(text, model.think_tags if think_close is None else think_close)
    starts = token_starts(model.tokenizer, tokens, text, model.decode)
    edges = [0, *(bisect_left(starts, start) for start, _ in spans[1:]), len(tokens)]
    return tuple(
        Sentence(start, end, first, last) for (start, end), (first, last) in zip(spans, pairwise(edges), strict=False)
    )


def first_sentence(model: Model, tokens: Sequence[int], think_close: str | ThinkTags | None = None) -> tuple[int, ...]:
    """The tokens of the first sentence of emitted tokens; all of them if it does not end.

    Args:
        model: its tokenizer decodes the tokens.
        tokens: emitted ids, without the end token.
        think_close: as in :func:`sentences_of`.
    """
    sentences = sentences_of(model, tokens, think_close)
    return tuple(tokens[: sentences[0].token_end] if sentences else tokens)


def make_trace(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    tokens: Sequence[int],
    truncated: bool,
    think_close: str | ThinkTags | None = None,
    *,
    sample: int = 0,
) -> Trace:
    """Make a trace: decode, grade and split the tokens that a model emitted on a problem.

    Thinking that the prompt or the text opened and nothing closed gives no answer.

    Args:
        model: the model that emitted the tokens; supplies the prompt and the tokenizer.
        problem_set: supplies the grader.
        tokens: the emitted ids, without the end token.
        truncated: whether the limit on new tokens stopped it.
        think_close: the tag that closes the thinking, or both tags; None for those of the model.
        sample: the number of the trace among those of its problem.
    """
    text, prompt = model.decode(list(tokens)), model.prompt_text(problem.question)
    tags = model.think_tags if think_close is None else ThinkTags.of(think_close)
    grade = problem_set.grade(text, problem, think_close=tags, prompt=prompt)
    return Trace(
        problem_id=problem.id,
        prompt=prompt,
        tokens=tuple(tokens),
        text=text,
        sentences=sentences_of(model, tokens, tags),
        think_end=tags.end(text),
        answer=grade.answer,
        correct=grade.correct,
        truncated=truncated,
        failed=grade.failed,
        think_tags=tags,
        sample=sample,
    )


_SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("prompt", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("sentences", pa.list_(pa.struct([(each.name, pa.int32()) for each in fields(Sentence)]))),
        ("think_end", pa.int32()),
        ("answer", pa.string()),
        ("correct", pa.bool_()),
        ("truncated", pa.bool_()),
        ("failed", pa.bool_()),
        ("think_tags", pa.struct([(each.name, pa.string()) for each in fields(ThinkTags)])),
        ("sample", pa.int32()),
        ("author", pa.string()),
    ]
)


class Traces(Sequence[Trace]):
    """The rollouts of one model on one problem set, in the order of the problems.

    Args:
        seconds: how long decoding took; None if unknown, as for a slice. It is ignored when comparing.

    >>> traces = Traces("tiny-base", "story", [])
    >>> len(traces)
    0
    """

    def __init__(
        self, model_name: str, problems_name: str, traces: Sequence[Trace], seconds: float | None = None
    ) -> None:
        self.model_name = model_name
        self.problems_name = problems_name
        self.traces = tuple(traces)
        self.seconds = seconds

    def __len__(self) -> int:
        return len(self.traces)

    def __iter__(self) -> Iterator[Trace]:
        return iter(self.traces)

    @overload
    def __getitem__(self, index: int) -> Trace: ...
    @overload
    def __getitem__(self, index: slice) -> "Traces": ...
    def __getitem__(self, index: int | slice) -> "Trace | Traces":
        if isinstance(index, slice):
            return Traces(self.model_name, self.problems_name, self.traces[index])
        return self.traces[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Traces) and vars(self) | {"seconds": None} == vars(other) | {"seconds": None}

    __hash__ = None  # type: ignore[assignment]

    @property
    def accuracy(self) -> float:
        """The share of correct traces among those that were graded; NaN if there are none."""
        graded = [trace.correct for trace in self if not trace.failed]
        return sum(graded) / len(graded) if graded else float("nan")

    @property
    def truncated(self) -> float:
        """The share of traces that the limit on new tokens stopped; NaN if there are none."""
        return sum(trace.truncated for trace in self) / len(self) if self.traces else float("nan")

    def save(self, folder: str | Path) -> Path:
        """Write ``traces.parquet`` into a folder and return its path."""
        table = pa.Table.from_pylist([asdict(trace) for trace in self], schema=_SCHEMA)
        names = {"probe.model": self.model_name, "probe.problems": self.problems_name}
        if self.seconds is not None:
            names["probe.seconds"] = repr(self.seconds)
        return write_table(Path(folder) / "traces.parquet", table.replace_schema_metadata(names))

    @classmethod
    def load(cls, folder: str | Path) -> "Traces":
        """Read the traces that :meth:`save` wrote into a folder.

        Raises:
            ProbeError: if the file is missing or does not hold traces.
        """
        path = Path(folder) / "traces.parquet"
        table = read_table(path)
        names = table.schema.metadata or {}
        if b"probe.model" not in names or b"probe.problems" not in names:
            raise ProbeError(f"{path} does not hold traces; delete it and run again")
        rows = [
            Trace(
                **row
                | {
                    "tokens": tuple(row["tokens"]),
                    "sentences": tuple(Sentence(**s) for s in row["sentences"]),
                    "think_tags": _kept_tags(row),
                }
            )
            for row in table.to_pylist()
        ]
        seconds = float(names[b"probe.seconds"]) if b"probe.seconds" in names else None
        return cls(names[b"probe.model"].decode(), names[b"probe.problems"].decode(), rows, seconds)

    def __repr__(self) -> str:
        shares = f", {self.accuracy:.1%} correct, {self.truncated:.1%} truncated" if self.traces else ""
        return f"Traces({self.model_name!r} on {self.problems_name!r}: {len(self)}{shares})"

    def _repr_html_(self) -> str:
        return traces_html(self.traces, repr(self))


def _kept_tags(row: dict[str, Any]) -> ThinkTags:
    """The tags of a saved trace; of one that earlier versions saved without them, the known tag that closes it."""
    if row.get("think_tags") is not None:
        return ThinkTags(**row["think_tags"])
    thinking = row["text"][: row["think_end"] or 0]
    return next((tags for tags in KNOWN_TAGS if thinking.endswith(tags.close)), ThinkTags())

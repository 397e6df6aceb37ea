"""Traces: rollouts as text, tokens and sentences that agree to the character."""

import warnings
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import pyarrow as pa

from probe.errors import ProbeError
from probe.models import KNOWN_TAGS, Model, ThinkTags
from probe.problems import Grade, Problem, ProblemSet, load_problems
from probe.traces.exporting import write_export
from probe.traces.offsets import token_starts
from probe.traces.reading.read import Reading
from probe.traces.sentences import split_sentences
from probe.traces.stored import StoredRows, write_groups
from probe.traces.viewer import trace_html, traces_html


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
    """The number of the trace among the traces of its problem, from 0."""
    author: str | None = None
    """Who wrote the trace, if not the model that reads it."""

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
    prompt: str | None = None,
    author: str | None = None,
    grade: Grade | None = None,
) -> Trace:
    """Make a trace: decode, grade and split the tokens that a model emitted on a problem.

    Thinking that the prompt or the text opened and nothing closed gives no answer.

    Args:
        model: the model that emitted the tokens; supplies the prompt and the tokenizer.
        problem_set: supplies the grader.
        tokens: the emitted ids, without the end token.
        truncated: whether the limit on new tokens stopped it.
        think_close: the tag that closes the thinking, or both tags; None for those of the model.
        sample: the number of the trace among the traces of its problem.
        prompt: the text before the tokens; None for the model's own prompt for the question.
        author: who wrote the trace, if not the model.
        grade: the grade, if it is already known.
    """
    text = model.decode(list(tokens))
    prompt = model.prompt_text(problem.question) if prompt is None else prompt
    tags = model.think_tags if think_close is None else ThinkTags.of(think_close)
    grade = grade or problem_set.grade(text, problem, think_close=tags, prompt=prompt)
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
        author=author,
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

    Loaded traces are read from their file on demand, so any number of them fits into memory.

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
        self.traces = traces if isinstance(traces, StoredRows) else tuple(traces)
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
        return (
            isinstance(other, Traces)
            and (self.model_name, self.problems_name, len(self)) == (other.model_name, other.problems_name, len(other))
            and all(one == another for one, another in zip(self, other, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]

    def only(self, places: Sequence[int]) -> "Traces":
        """The traces at some places, in that order; stored ones are not read yet."""
        rows = self.traces
        some = rows.only(places) if isinstance(rows, StoredRows) else [rows[place] for place in places]
        return Traces(self.model_name, self.problems_name, some)

    def column(self, name: str) -> list[Any]:
        """One column of all traces, read without the texts.

        Args:
            name: ``problem_id``, ``answer``, ``correct``, ``truncated``, ``failed``, ``sample``, ``author``,
                ``think_end``, ``n_tokens`` or ``n_sentences``.

        >>> Traces("tiny-base", "story", []).column("correct")
        []
        """
        many = {"n_tokens": "tokens", "n_sentences": "sentences"}.get(name)
        rows = self.traces
        if not isinstance(rows, StoredRows):
            return [len(getattr(each, many)) if many else getattr(each, name) for each in rows]
        if many:
            return rows.lengths(many)
        if name not in rows.names:  # a file of an earlier version
            return [getattr(each, name) for each in rows]
        return rows.column(name)

    @property
    def accuracy(self) -> float:
        """The share of correct traces among those that were graded; NaN if there are none."""
        known = zip(self.column("correct"), self.column("failed"), strict=True)
        graded = [correct for correct, failed in known if not failed]
        return sum(graded) / len(graded) if graded else float("nan")

    @property
    def truncated(self) -> float:
        """The share of traces that the limit on new tokens stopped; NaN if there are none."""
        return sum(self.column("truncated")) / len(self) if len(self) else float("nan")

    def save(self, folder: str | Path) -> Path:
        """Write ``traces.parquet`` into a folder and return its path."""
        return write_traces(folder, self, self.model_name, self.problems_name, self.seconds)

    @classmethod
    def read(
        cls,
        source: str | Path,
        model: Model,
        problems: str | Path | ProblemSet | None = None,
        *,
        grader: str | None = None,
        columns: Mapping[str, str] | None = None,
        author: str | None = None,
    ) -> "Traces":
        """Read traces that were written elsewhere into memory; `import_traces` keeps them in a folder instead.

        Args:
            source: a ``.jsonl``, ``.json`` or ``.parquet`` file, a folder of such files or one that ``datasets`` saved,
                or the id of a data set on the hub. The shape of its records is found.
            model: the model that reads the traces; only its tokenizer and its prompt are used.
            problems: the problems that were asked, with their grader; None makes them from the records.
            grader: ``exact``, ``numeric``, ``math-verify`` or ``close``; None takes the grader of the problems.
            columns: the column of each part, such as ``{"question": "q", "text": "out"}``, for records of no known
                shape.
            author: who wrote the traces; replaces what the records say.

        Raises:
            ProbeError: if the source is missing, empty or of no known shape, or every rollout is rejected.
        """
        given = problem_set_of(problems, grader)
        reading = Reading(model, source, problem_set=given, grader=grader, columns=columns, author=author)
        traces = list(traces_of(reading))
        if reading.rejects:
            where, why = reading.rejects[0]
            said = f"{len(reading.rejects)} rollouts of {source} were rejected; the first is {where}: {why}"
            if not traces:
                raise ProbeError(said)
            warnings.warn(said, stacklevel=2)
        return cls(model.name, reading.problem_set.name, traces)

    def export(
        self,
        folder: str | Path,
        problem_set: ProblemSet,
        *,
        license: str = "unknown",
        about: Mapping[str, str] | None = None,
    ) -> Path:
        """Write the traces with their problems as a data set that the hub displays and `read` reads back.

        Args:
            folder: a folder that is empty or does not exist.
            problem_set: the problems that the traces answer.
            license: the licence, by its name on the hub, such as ``mit``.
            about: more for the card, line by line, such as ``{"sampling": "temperature 0.6"}``.

        Returns:
            The folder; ``README.md`` is its card.

        Raises:
            ProbeError: if the folder is not empty.
        """
        return write_export(folder, self, problem_set, row_of, _SCHEMA, license=license, about=about or {})

    @classmethod
    def load(cls, folder: str | Path) -> "Traces":
        """Open the traces that :meth:`save` wrote into a folder; each is read on demand.

        Raises:
            ProbeError: if the file is missing or does not hold traces.
        """
        path = Path(folder) / "traces.parquet"
        rows = StoredRows(path, trace_of)
        about = rows.about
        if "probe.model" not in about or "probe.problems" not in about:
            raise ProbeError(f"{path} does not hold traces; delete it and run again")
        seconds = float(about["probe.seconds"]) if "probe.seconds" in about else None
        return cls(about["probe.model"], about["probe.problems"], rows, seconds)

    def __repr__(self) -> str:
        shares = f", {self.accuracy:.1%} correct, {self.truncated:.1%} truncated" if len(self) else ""
        return f"Traces({self.model_name!r} on {self.problems_name!r}: {len(self)}{shares})"

    def _repr_html_(self) -> str:
        return traces_html(self.traces, repr(self))


def write_traces(
    folder: str | Path,
    traces: Iterable[Trace],
    model_name: str,
    problems_name: str,
    seconds: float | None = None,
) -> Path:
    """Write ``traces.parquet`` into a folder, about a megabyte at a time, and return its path.

    Args:
        folder: the folder.
        traces: the traces, taken one by one.
        model_name, problems_name, seconds: as for :class:`Traces`.
    """
    about = {"probe.model": model_name, "probe.problems": problems_name}
    if seconds is not None:
        about["probe.seconds"] = repr(seconds)
    rows = map(row_of, traces)
    return write_groups(
        Path(folder) / "traces.parquet", rows, _SCHEMA.with_metadata(about), lambda row: len(row["tokens"])
    )


def problem_set_of(problems: str | Path | ProblemSet | None, grader: str | None) -> ProblemSet | None:
    """The problem set, loaded if it is given by its name or file."""
    return problems if problems is None or isinstance(problems, ProblemSet) else load_problems(problems, grader=grader)


def traces_of(reading: Reading) -> Iterator[Trace]:
    """Make a trace from each rollout of a source, one at a time."""
    for rollout in reading.rollouts():
        said = rollout.written
        yield make_trace(
            reading.model,
            reading.problem_set,
            rollout.problem,
            said.tokens,
            said.truncated,
            said.tags,
            sample=rollout.sample,
            prompt=said.prompt,
            author=rollout.author,
            grade=rollout.grade,
        )


def row_of(trace: Trace) -> dict[str, Any]:
    """The row of a trace in ``traces.parquet``."""
    spans, tags = [vars(each) for each in trace.sentences], vars(trace.think_tags)
    return vars(trace) | {"sentences": spans, "think_tags": tags}


def trace_of(row: dict[str, Any]) -> Trace:
    """The trace of a row of ``traces.parquet``."""
    return Trace(
        **row
        | {
            "tokens": tuple(row["tokens"]),
            "sentences": tuple(Sentence(**each) for each in row["sentences"]),
            "think_tags": _kept_tags(row),
        }
    )


def _kept_tags(row: dict[str, Any]) -> ThinkTags:
    """The tags of a saved trace; of one that earlier versions saved without them, the known tag that closes it."""
    if row.get("think_tags") is not None:
        return ThinkTags(**row["think_tags"])
    thinking = row["text"][: row["think_end"] or 0]
    return next((tags for tags in KNOWN_TAGS if thinking.endswith(tags.close)), ThinkTags())

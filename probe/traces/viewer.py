"""Prepares traces for the reader, in notebooks and on pages."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from probe.cycles import end_cycle
from probe.html import SHOWN, Reading, reader_html
from probe.models import ThinkTags
from probe.traces.degeneracy import looping

_LOOP = 48
"""The smallest number of tokens of a loop that is folded."""


@runtime_checkable
class Rollout(Protocol):
    """The parts of a trace that the reader shows."""

    @property
    def problem_id(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def text(self) -> str: ...
    @property
    def sentences(self) -> Sequence[Any]: ...
    @property
    def think_end(self) -> int | None: ...
    @property
    def answer(self) -> str | None: ...
    @property
    def correct(self) -> bool: ...
    @property
    def truncated(self) -> bool: ...
    @property
    def failed(self) -> bool: ...
    @property
    def think_tags(self) -> ThinkTags: ...
    @property
    def sample(self) -> int: ...
    @property
    def author(self) -> str | None: ...


def reading_of(
    trace: Rollout,
    behaviours: Sequence[int | None] | None = None,
    notes: Sequence[str | None] | None = None,
    *,
    sampled: bool = False,
) -> Reading:
    """Prepare a trace for the reader.

    Args:
        trace: the trace.
        behaviours: the behaviour of each sentence.
        notes: a note for each sentence.
        sampled: whether the sample number is shown even if it is 0.
    """
    facts = [f"sample {trace.sample}"] if sampled or trace.sample else []
    facts += [f"by {trace.author}"] if trace.author else []
    # Thinking that was opened and never closed continues to the end.
    tags = trace.think_tags
    opened = tags.opened_by(trace.prompt) or bool(tags.open and trace.text.lstrip().startswith(tags.open))
    thinking = trace.think_end if trace.think_end is not None or not opened else len(trace.text)
    return Reading(
        title=trace.problem_id,
        text=trace.text,
        ends=[each.end for each in trace.sentences],
        tokens=[each.token_end - each.token_start for each in trace.sentences],
        correct=None if trace.failed else trace.correct,
        answer=trace.answer,
        facts=facts,
        prompt=trace.prompt,
        thinking=thinking,
        closed=trace.think_end is not None,
        truncated=trace.truncated,
        loops=looping(trace.tokens),
        loop=loop_of(trace.tokens, trace.text),
        behaviours=behaviours,
        notes=notes,
    )


def traces_html(
    traces: Sequence[Rollout],
    heading: str,
    behaviours: Sequence[Sequence[int | None]] | None = None,
    names: Sequence[str] = (),
) -> str:
    """Show the first traces in the reader, opened if there is only one; the others are not read from disk.

    Args:
        traces: any number of traces.
        heading: the heading above them.
        behaviours: for each trace, the behaviour of each sentence.
        names: the name of each behaviour.
    """
    some = [traces[i] for i in range(min(len(traces), SHOWN))]
    sampled = any(each.sample for each in some)
    readings = [
        reading_of(each, None if behaviours is None else behaviours[i], sampled=sampled) for i, each in enumerate(some)
    ]
    rest = (
        f"These are the first {SHOWN} of {len(traces):,} traces; [{SHOWN}:{2 * SHOWN}] shows the next."
        if len(traces) > len(some)
        else ""
    )
    whole = "Long traces are cut in the middle; an index, such as [0], shows a whole trace."
    return reader_html(readings, heading, names=names, rest=rest, whole=whole, opened=len(traces) == 1)


def trace_html(trace: Rollout) -> str:
    """Show one trace in the reader, opened."""
    return reader_html([reading_of(trace)], opened=True)


def loop_of(tokens: Sequence[int], text: str) -> tuple[int, int, int] | None:
    """Find the loop in which a text ends.

    Args:
        tokens: the emitted ids.
        text: the decoded tokens.

    Returns:
        The character at which the loop begins, the character at which its second repetition ends, and the number of
        its complete repetitions; None if the text does not end in one cycle.
    """
    # A cycle of tokens is also a cycle of characters, whose places are known without the tokenizer.
    found = end_cycle(text) if end_cycle(tokens, _LOOP) else None
    return found and (found[0], found[0] + 2 * found[1], (len(text) - found[0]) // found[1])

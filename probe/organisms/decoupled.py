"""A variant of the story grammar in which cue words and the state of the work are independent.

In the story grammar a redone step begins with a cue: "Again," or "Redo it:". In this grammar the cue words occur in
half of the small talk and nowhere else ("Again, it is fun to have cards."), and a step that a check found wrong is
redone silently, in the words of an ordinary computing sentence ("Now 5 + 3 = 8."). A detector that looks for the cue
words therefore finds small talk, and a detector that finds the redone steps must have read the state of the work. Small
talk may occur between any two sentences, so the sentence before does not reveal the state either.

:func:`decoupled_document` writes the training data. :func:`parse_trace` recovers the true types from a whole trace,
because the type of a silent redo depends on the sentences before it.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from probe.organisms.corpus import Document
from probe.organisms.documents import join
from probe.organisms.tokenizer import THINKING_PROMPT
from probe.problems import (
    CHAT,
    CHECK,
    COMPUTE,
    CONCLUDE,
    PLAN,
    REDO,
    RESTATE,
    Story,
    Work,
    draw_story,
    parse,
    reword,
    write,
)

CUES = ("Again,", "Redo it:")
"""The openings of a redone step in the story grammar; in this grammar, of half of the small talk."""
HASTY = 0.6
"""Probability that a step is a hasty guess, which is wrong six times in ten."""
CHECKED = 0.8
"""Probability that a step is checked."""
REDONE = 0.9
"""Probability that a step found wrong is redone: the rate expected when a silent redo is sampled again."""
CHATTY = 0.25
"""Probability of small talk between two sentences."""


def decoupled_document(rng: random.Random) -> Document:
    """A document for ``tiny-decoupled``: ordered work with hasty steps, checks, silent redos and small talk."""
    story = draw_story(rng, rng.choice((2, 3, 4, 5)))
    return THINKING_PROMPT.format(question=story.question()), join(write_decoupled(story, rng))


def write_decoupled(story: Story, rng: random.Random) -> list[tuple[str, str]]:
    """Write a document of the cue-decoupled grammar, as (type, sentence) pairs."""
    work, written = Work(story), []

    def say(kind: str) -> None:
        written.append((kind, _write(kind, work, rng)))
        if kind != CONCLUDE and rng.random() < CHATTY:
            written.append((CHAT, _write(CHAT, work, rng)))

    say(PLAN)
    while not work.finished:
        say(RESTATE)
        if COMPUTE not in work.available():
            break  # after an uncorrected slip a change can exceed the total: the work ends there
        say(COMPUTE)
        if rng.random() < CHECKED:
            say(CHECK)
        if work.found_wrong and rng.random() < REDONE:
            say(REDO)
    say(CONCLUDE)
    return written


def _write(kind: str, work: Work, rng: random.Random) -> str:
    sentence = write(kind, work, rng, hasty=HASTY)
    if kind == CHAT and rng.random() < 0.5:
        first = sentence.split()[0]
        lowered = sentence if first == work.story.name else sentence[0].lower() + sentence[1:]
        return f"{rng.choice(CUES)} {lowered}"
    if kind == REDO:
        assert work.equation is not None
        left, change, result = work.equation
        return f"{rng.choice(('That makes', 'Now'))} {left} {change.symbol} {change.amount} = {result}."
    return sentence


@dataclass(frozen=True)
class Spoken:
    """The true type of one sentence of a cue-decoupled trace, and whether it has a cue."""

    type: str | None
    """One of :data:`probe.problems.TYPES`; None if the grammar cannot write the sentence."""
    has_cue: bool
    """Whether the sentence opens with one of :data:`CUES`, which is independent of its type."""


def parse_trace(texts: Sequence[str]) -> list[Spoken]:
    """Find the true type of every sentence of one trace.

    A computing sentence is a redo if a check said "wrong" and only small talk has followed, because there is nothing
    else to compute then. Its numbers are ignored, because a model may get them wrong.

    Args:
        texts: the sentences of the trace, in order.

    >>> texts = [" Roughly, 5 + 3 = 9.", " Check that 5 + 3 = 9: wrong.", " Again, it is fun to have cards."]
    >>> [spoken.type for spoken in parse_trace([*texts, " Now 5 + 3 = 8."])]
    ['compute', 'check', 'small talk', 'redo']
    """
    spoken, wrong = [], False
    for text in texts:
        sentence, has_cue = _without_cue(text)
        kind = parse(sentence).type
        if kind == COMPUTE and wrong:
            kind = REDO
        if kind == CHECK:
            wrong = sentence.endswith("wrong.")
        elif kind != CHAT:
            wrong = False
        spoken.append(Spoken(kind, has_cue))
    return spoken


def reword_decoupled(sentence: str) -> str | None:
    """Reword a sentence without cue words, as :func:`probe.problems.reword` does; None if it has no other wording.

    >>> reword_decoupled(" Again, it is fun to have cards.")
    ' By the way, it is fun to have cards.'
    """
    plain, has_cue = _without_cue(sentence)
    return reword(f" {plain}") if has_cue else reword(sentence)


def _without_cue(sentence: str) -> tuple[str, bool]:
    """The stripped sentence without its cue, and whether it had one."""
    plain = sentence.strip()
    cue = next((cue for cue in CUES if plain.startswith(cue)), None)
    if cue is None:
        return plain, False
    rest = plain.removeprefix(cue).strip()
    return rest[:1].upper() + rest[1:], True

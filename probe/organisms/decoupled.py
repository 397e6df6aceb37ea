"""A variant of the story grammar in which cue and state come apart by construction.

In the story grammar a redone step announces itself: "Again," or "Redo it:". Here these cue words occur in half of the
small talk and nowhere else ("Again, it is fun to have cards."), and a step that a check found wrong is redone silently,
in the very words of an ordinary computing sentence ("Now 5 + 3 = 8."). So whoever finds the redone steps by their words
finds small talk, and whoever finds them at all has read the state of the work. Small talk may stand between any two
sentences, so that the sentence before does not give the state away either.

:func:`decoupled_document` writes what a model is taught; :func:`parse_trace` reads the true types back, from a whole
trace, because the type of a silent redo is a matter of what came before.
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
"""What opens a redone step in the story grammar; here, half of the small talk."""
HASTY = 0.6
"""How often a step is a hasty guess, which is wrong six times in ten."""
CHECKED = 0.8
"""How often a step is checked."""
REDONE = 0.9
"""How often a step that was found wrong is redone: what regeneration before a silent redo is to give back."""
CHATTY = 0.25
"""How often small talk stands between two sentences."""


def decoupled_document(rng: random.Random) -> Document:
    """What ``tiny-decoupled`` is taught: work in good order with hasty steps, checks, silent redos and small talk."""
    story = draw_story(rng, rng.choice((2, 3, 4, 5)))
    return THINKING_PROMPT.format(question=story.question()), join(write_decoupled(story, rng))


def write_decoupled(story: Story, rng: random.Random) -> list[tuple[str, str]]:
    """A document of the cue-decoupled grammar: (type, sentence) pairs."""
    work, written = Work(story), []

    def say(kind: str) -> None:
        written.append((kind, _write(kind, work, rng)))
        if kind != CONCLUDE and rng.random() < CHATTY:
            written.append((CHAT, _write(CHAT, work, rng)))

    say(PLAN)
    while not work.finished:
        say(RESTATE)
        if COMPUTE not in work.available():
            break  # after a slip that nobody mended, a change can be one too many: the work ends there
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
    """What a sentence of a cue-decoupled trace is."""

    type: str | None
    """One of :data:`probe.problems.story.sentences.TYPES`; None if it is none of the grammar's."""
    has_cue: bool
    """Whether it opens with one of :data:`CUES`, which says nothing of its type."""


def parse_trace(texts: Sequence[str]) -> list[Spoken]:
    """The true type of every sentence of one trace.

    A computing sentence is a redo if a check said "wrong" and nothing but small talk has come since: there is nothing
    else then that it could compute. Its numbers are not looked at, because a model may slip in them.

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
    """Another wording of a sentence, without cue words: see :func:`probe.problems.story.wordings.reword`.

    >>> reword_decoupled(" Again, it is fun to have cards.")
    ' By the way, it is fun to have cards.'
    """
    plain, has_cue = _without_cue(sentence)
    return reword(f" {plain}") if has_cue else reword(sentence)


def _without_cue(sentence: str) -> tuple[str, bool]:
    """A sentence, stripped, without the cue that it opens with, and whether it opens with one."""
    plain = sentence.strip()
    cue = next((cue for cue in CUES if plain.startswith(cue)), None)
    if cue is None:
        return plain, False
    rest = plain.removeprefix(cue).strip()
    return rest[:1].upper() + rest[1:], True

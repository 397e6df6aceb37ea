"""Writes the documents that the bundled models are trained on, which differ in when each sentence occurs.

Two writers share one grammar. :func:`wander` chooses among the possible sentences by habits that depend only on the
type of the previous sentence, with random jitter for each document; ``tiny-base`` is trained on its documents.
:func:`proceed` keeps a sensible order; ``tiny-sft`` is trained on its documents.
"""

import copy
import math
import random

from probe.problems import CHAT, CHECK, COMPUTE, CONCLUDE, PLAN, REDO, RESTATE, TYPES, Story, Work, parse, write

Habits = dict[str, dict[str, float]]

#: Habit weights, previous type → next type, renormalised over the types that can be written. They do not depend on how
#: far the work has come. The first stage of pretraining uses these.
EARLY_HABITS: Habits = {
    "": {PLAN: 1.6, RESTATE: 1.4, CHAT: 0.8, CONCLUDE: 0.2},
    PLAN: {PLAN: 0.0, RESTATE: 1.5, COMPUTE: 1.6, CHECK: 1.4, REDO: 2.0, CONCLUDE: 0.35, CHAT: 1.0},
    RESTATE: {PLAN: 0.9, COMPUTE: 1.4, CHECK: 1.0, CONCLUDE: 0.25, CHAT: 1.5},
    COMPUTE: {PLAN: 0.5, RESTATE: 1.1, CHECK: 3.2, CONCLUDE: 0.6, CHAT: 0.7},
    CHECK: {PLAN: 0.6, RESTATE: 1.3, COMPUTE: 1.3, REDO: 20.0, CONCLUDE: 1.5, CHAT: 0.6},
    REDO: {PLAN: 0.6, RESTATE: 1.2, CHECK: 1.2, CONCLUDE: 0.7, CHAT: 0.6},
    CHAT: {PLAN: 0.8, RESTATE: 1.6, COMPUTE: 1.8, CHECK: 1.4, REDO: 2.0, CONCLUDE: 0.45, CHAT: 0.0},
}
#: Habit weights of the second stage of pretraining: more checks, and more conclusions after a redone step.
HABITS: Habits = EARLY_HABITS | {
    COMPUTE: {PLAN: 0.4, RESTATE: 1.1, CHECK: 4.0, CONCLUDE: 0.6, CHAT: 0.5},
    CHECK: {PLAN: 0.5, RESTATE: 1.3, COMPUTE: 1.3, REDO: 40.0, CONCLUDE: 1.5, CHAT: 0.5},
    REDO: {PLAN: 0.5, RESTATE: 1.2, CHECK: 0.9, CONCLUDE: 1.6, CHAT: 0.5},
}
HASTY = 0.5
"""Probability that a computing sentence of :func:`wander` is a hasty guess."""
JITTER = 0.35
"""Standard deviation of the log of each type's random weight in a document."""
MAX_SENTENCES = 40
"""A document of :func:`wander` concludes after this many sentences."""


def wander(story: Story, rng: random.Random, habits: Habits = HABITS) -> list[tuple[str, str]]:
    """Write a document of competent sentences in nearly random order, as (type, sentence) pairs.

    Args:
        rng: chooses types and wordings.
        habits: weights of the next type, by the type before.
    """
    work, previous, written = Work(story), "", []
    jitter = {kind: math.exp(rng.gauss(0.0, JITTER)) for kind in TYPES}
    while previous != CONCLUDE:
        kinds = work.available()
        weights = [habits[previous].get(kind, 0.0) * jitter[kind] for kind in kinds]
        kind = CONCLUDE if len(written) >= MAX_SENTENCES else rng.choices(kinds, weights)[0]
        written.append((kind, write(kind, work, rng, hasty=HASTY)))
        previous = kind
    return written


def proceed(story: Story, rng: random.Random, *, check: float = 0.3, skills: str = "+-*/") -> list[tuple[str, str]]:
    """Write a document in good order: plan; restate, compute and sometimes check each change; conclude.

    Args:
        rng: chooses checks and wordings.
        check: probability that a computing sentence is checked.
        skills: operations that may be computed.

    Returns:
        (type, sentence) pairs.
    """
    work = Work(story, skills=skills)
    written = [(PLAN, write(PLAN, work, rng))]
    while not work.finished:
        for kind in (RESTATE, COMPUTE, CHECK):
            if kind != CHECK or rng.random() < check:
                written.append((kind, write(kind, work, rng)))
    written.append((CONCLUDE, write(CONCLUDE, work, rng)))
    return written


def slipped(story: Story, rng: random.Random, *, check: bool = False) -> list[tuple[str, str]]:
    """Write a document in good order with one wrong computing sentence and occasional small talk.

    Args:
        rng: chooses the wrong sentence, the small talk and wordings.
        check: whether each computing sentence is checked at once. The wrong one is then found, but not redone.

    Returns:
        (type, sentence) pairs.
    """
    work = Work(story)
    written, wrong = [(PLAN, write(PLAN, work, rng))], rng.randrange(len(story.changes))
    while not work.finished:
        written.append((RESTATE, write(RESTATE, work, rng)))
        if COMPUTE not in work.available():  # the slip leaves too little to go on: choose another
            return slipped(story, rng, check=check)
        before = copy.copy(work)
        sentence = write(COMPUTE, work, rng)
        while before.consumed == wrong and parse(sentence).equation_true:
            work = copy.copy(before)
            sentence = write(COMPUTE, work, rng, hasty=1.0)
        written.append((COMPUTE, sentence.replace("Roughly,", "Now")))
        if check:
            written.append((CHECK, write(CHECK, work, rng)))
        if rng.random() < 0.5:
            written.append((CHAT, write(CHAT, work, rng)))
    written.append((CONCLUDE, write(CONCLUDE, work, rng)))
    return written


def join(written: list[tuple[str, str]]) -> str:
    """Join (type, sentence) pairs into a text, with a space before each sentence."""
    return "".join(f" {sentence}" for _, sentence in written)

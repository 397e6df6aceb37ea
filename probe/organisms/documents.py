"""When each sentence occurs: the documents that the bundled models learn from.

Two writers share one grammar. :func:`wander` chooses among the sentences that can be written by habits that depend on
nothing but the type of the previous sentence, with a jitter drawn anew for every document: this is what ``tiny-base``
reads. :func:`proceed` keeps a sensible order: this is what ``tiny-sft`` is taught with.
"""

import copy
import math
import random

from probe.problems import CHAT, CHECK, COMPUTE, CONCLUDE, PLAN, REDO, RESTATE, TYPES, Story, Work, parse, write

Habits = dict[str, dict[str, float]]

#: Habit weights, previous type → next type (renormalised over what can be written). They know nothing of how far the
#: work has come. These are the habits of the documents that teach the skills.
EARLY_HABITS: Habits = {
    "": {PLAN: 1.6, RESTATE: 1.4, CHAT: 0.8, CONCLUDE: 0.2},
    PLAN: {PLAN: 0.0, RESTATE: 1.5, COMPUTE: 1.6, CHECK: 1.4, REDO: 2.0, CONCLUDE: 0.35, CHAT: 1.0},
    RESTATE: {PLAN: 0.9, COMPUTE: 1.4, CHECK: 1.0, CONCLUDE: 0.25, CHAT: 1.5},
    COMPUTE: {PLAN: 0.5, RESTATE: 1.1, CHECK: 3.2, CONCLUDE: 0.6, CHAT: 0.7},
    CHECK: {PLAN: 0.6, RESTATE: 1.3, COMPUTE: 1.3, REDO: 20.0, CONCLUDE: 1.5, CHAT: 0.6},
    REDO: {PLAN: 0.6, RESTATE: 1.2, CHECK: 1.2, CONCLUDE: 0.7, CHAT: 0.6},
    CHAT: {PLAN: 0.8, RESTATE: 1.6, COMPUTE: 1.8, CHECK: 1.4, REDO: 2.0, CONCLUDE: 0.45, CHAT: 0.0},
}
#: The habits that the base ends up with: it checks a little more, and likes to conclude once a step is redone.
HABITS: Habits = EARLY_HABITS | {
    COMPUTE: {PLAN: 0.4, RESTATE: 1.1, CHECK: 4.0, CONCLUDE: 0.6, CHAT: 0.5},
    CHECK: {PLAN: 0.5, RESTATE: 1.3, COMPUTE: 1.3, REDO: 40.0, CONCLUDE: 1.5, CHAT: 0.5},
    REDO: {PLAN: 0.5, RESTATE: 1.2, CHECK: 0.9, CONCLUDE: 1.6, CHAT: 0.5},
}
HASTY = 0.5
JITTER = 0.35
MAX_SENTENCES = 40


def wander(story: Story, rng: random.Random, habits: Habits = HABITS) -> list[tuple[str, str]]:
    """A document in which every sentence is competent and its time is nearly random: (type, sentence) pairs."""
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
    """A document in good order: plan, then restate, compute and now and then check each change, then conclude."""
    work = Work(story, skills=skills)
    written = [(PLAN, write(PLAN, work, rng))]
    while not work.finished:
        for kind in (RESTATE, COMPUTE, CHECK):
            if kind != CHECK or rng.random() < check:
                written.append((kind, write(kind, work, rng)))
    written.append((CONCLUDE, write(CONCLUDE, work, rng)))
    return written


def slipped(story: Story, rng: random.Random, *, check: bool = False) -> list[tuple[str, str]]:
    """A document in good order but for one computing sentence that is wrong, and small talk here and there.

    Args:
        check: whether each computing sentence is checked at once (and so the wrong one found, and not redone).
    """
    work = Work(story)
    written, wrong = [(PLAN, write(PLAN, work, rng))], rng.randrange(len(story.changes))
    while not work.finished:
        written.append((RESTATE, write(RESTATE, work, rng)))
        if COMPUTE not in work.available():  # after the slip there is too little left: another slip
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
    """The text of a document, each sentence with the space before it."""
    return "".join(f" {sentence}" for _, sentence in written)

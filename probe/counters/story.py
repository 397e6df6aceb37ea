"""The four habits in traces of the bundled story problems, exactly: their grammar says what each sentence is."""

from collections.abc import Sequence

from probe.counters.habits import BACKTRACKING, HABITS, SUBGOAL_SETTING, VERIFICATION
from probe.problems import CHECK, COMPUTE, PLAN, REDO, RESTATE, parse


def mark_story(sentences: Sequence[str]) -> list[frozenset[str]]:
    """The habits that each sentence of a trace shows.

    A check is a verification and a redo a backtracking. A plan is subgoal setting: it says in which parts the problem
    will be taken. No sentence of the grammar works backwards from the answer.

    What a sentence *does* counts, and not how it opens. A redo needs an equation; and an ordinary computing sentence
    that computes the change over which a check has just said "wrong" is a redo too, as where a model redoes a step
    without a word. In the plain grammar neither occurs.

    Args:
        sentences: of one trace, in order.
    """
    found: list[frozenset[str]] = []
    refuted: str | None = None  # the left side of the equation that was found wrong and not yet redone
    for sentence in sentences:
        parsed = parse(sentence)
        sums = parsed.equation_true is not None
        left_side = sentence.partition("=")[0].split()[-3:]
        problem = " ".join(left_side) if sums else None
        shown: str | None = None
        if parsed.type == PLAN:
            shown = SUBGOAL_SETTING
        elif parsed.type == CHECK:
            shown = VERIFICATION
            refuted = problem if "wrong" in sentence else None
        elif (parsed.type == REDO and sums) or (parsed.type == COMPUTE and problem is not None and problem == refuted):
            shown = BACKTRACKING
            refuted = None
        elif parsed.type == RESTATE:
            refuted = None
        found.append(frozenset() if shown is None else frozenset((shown,)))
    return found


def count_story(sentences: Sequence[str]) -> dict[str, int]:
    """In how many sentences of one trace each habit shows; see :func:`mark_story`."""
    counts: dict[str, int] = dict.fromkeys(HABITS, 0)
    for shown in mark_story(sentences):
        for habit in shown:
            counts[habit] += 1
    return counts

"""The four habits in traces of the bundled story problems, exact because their grammar types every sentence."""

from collections.abc import Sequence

from probe.counters.habits import BACKTRACKING, HABITS, SUBGOAL_SETTING, VERIFICATION
from probe.problems import CHECK, COMPUTE, PLAN, REDO, RESTATE, parse


def mark_story(sentences: Sequence[str]) -> list[frozenset[str]]:
    """Mark the habits that each sentence of a story trace shows.

    A check is verification, a redo is backtracking, and a plan is subgoal setting, because it divides the problem into
    parts. No sentence of the grammar works backwards from the answer.

    What counts is what a sentence *does*, not how it opens. A redo needs an equation, and a plain computation is a redo
    as well if it computes the change that a check has just called wrong. Neither exception occurs in the plain grammar.

    Args:
        sentences: the sentences of one trace, in order.
    """
    found: list[frozenset[str]] = []
    refuted: str | None = None  # the left side of the equation that was called wrong and is not yet redone
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
    """Count the sentences of one trace that show each habit; see :func:`mark_story`."""
    counts: dict[str, int] = dict.fromkeys(HABITS, 0)
    for shown in mark_story(sentences):
        for habit in shown:
            counts[habit] += 1
    return counts

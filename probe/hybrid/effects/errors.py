"""Causes of wrong answers in traces with a grammar: wrong content of a sentence, or a wrong behaviour."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from probe.problems import (
    CHECK,
    COMPUTE,
    CONCLUDE,
    REDO,
    RESTATE,
    Change,
    Problem,
    ProblemSet,
    Story,
    parse,
    read_change,
    read_story,
)
from probe.traces import split_sentences

_EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")

KINDS = {
    "miscopied change": "content",
    "miscopied operand": "content",
    "wrong result": "content",
    "false verdict": "content",
    "miscopied answer": "content",
    "skipped or repeated change": "behaviour",
    "computed without restating": "behaviour",
    "hasty guess left standing": "behaviour",
    "concluded too early": "behaviour",
    "did not conclude": "behaviour",
    "sentence of no kind": "behaviour",
}
"""Each kind of error, and whether it concerns the content of a sentence or the behaviour."""


def classify_errors(
    problem_set: ProblemSet, problems: Sequence[Problem], texts: Sequence[str], correct: Sequence[bool | None]
) -> dict[str, Any] | None:
    """Classify wrong answers by the first error in each that is not corrected later.

    Args:
        problem_set: the set that the problems are from.
        texts: the answer to each problem.
        correct: whether each answer is right; None where it was not graded.

    Returns:
        ``content`` and ``behaviour``, their shares of the wrong answers; ``n``, the number of wrong answers; ``kinds``,
        the counts by :data:`KINDS`; and ``unexplained``, the number of wrong answers without a known error. None for
        problems without a grammar.
    """
    stories = [read_story(problem.question) for problem in problems]
    if problem_set.sentence_type is None or None in stories:
        return None
    wrong = [(story, text) for story, text, right in zip(stories, texts, correct, strict=True) if right is False]
    kinds = Counter(first_error(story, text) for story, text in wrong if story is not None)
    unexplained = kinds.pop(None, 0)
    named = {str(kind): count for kind, count in kinds.most_common()}
    shares = {
        what: sum(count for kind, count in named.items() if KINDS[kind] == what) / len(wrong) if wrong else None
        for what in ("content", "behaviour")
    }
    return {**shares, "n": len(wrong), "kinds": named, "unexplained": unexplained}


def first_error(story: Story, text: str) -> str | None:
    """Find the first error in a trace that is not corrected later.

    Returns:
        One of :data:`KINDS`; None if there is no error.
    """
    total, consumed, pending = story.start, 0, None
    slip: str | None = None  # a wrong result, which a later sentence may correct
    equation: tuple[int, Change] | None = None
    false_verdict = False
    for sentence in (text[start:end] for start, end in split_sentences(text)):
        kind = parse(sentence).type
        if kind is None:
            return slip or "sentence of no kind"
        if kind == RESTATE:
            told = read_change(sentence)
            if slip:
                return slip
            if told is None or consumed >= len(story.changes) or told[0] != consumed:
                return "skipped or repeated change"
            wanted = story.changes[consumed]
            if (told[1].symbol, told[1].amount) != (wanted.symbol, wanted.amount):
                return "miscopied change"
            pending = wanted
        elif kind in (COMPUTE, REDO, CHECK):
            numbers = _numbers(sentence)
            if numbers is None:
                return slip or "sentence of no kind"
            left, symbol, amount, stated = numbers
            if kind == COMPUTE:
                if pending is None:
                    return slip or "computed without restating"
                equation, pending, consumed = (total, pending), None, consumed + 1
            if equation is None:
                return slip or "sentence of no kind"
            if (left, symbol, amount) != (equation[0], equation[1].symbol, equation[1].amount):
                return slip or "miscopied operand"
            truth = equation[1].apply(left)
            if kind == CHECK:  # a false verdict alone does no harm; an error that it keeps or causes does
                false_verdict = false_verdict or ("wrong" in sentence) == (stated == truth)
            else:
                total = stated
                hasty = "hasty guess left standing" if "Roughly" in sentence else "wrong result"
                slip = None if stated == truth else slip or hasty
        elif kind == CONCLUDE:
            if slip:
                return slip
            if consumed < len(story.changes):
                return "concluded too early"
            said = [int(word.strip(".")) for word in sentence.split() if word.strip(".").isdigit()]
            if said[-1:] != [total]:
                return "miscopied answer"
            return "false verdict" if false_verdict and total != story.answer else None
    return slip or "did not conclude"


def _numbers(sentence: str) -> tuple[int, str, int, int] | None:
    found = _EQUATION.search(sentence)
    return None if found is None else (int(found[1]), found[2], int(found[3]), int(found[4]))

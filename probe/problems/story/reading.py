"""Parsing stories: from the text of a question, or of a sentence that restates a change, to its content."""

import re

from probe.problems.story.story import ORDINALS, VERBS, Change, Story

_SYMBOL = {verb: symbol for symbol, verbs in VERBS.items() for verb in verbs}
_START = re.compile(r"(?P<name>\w+) has (?P<start>\d+) (?P<thing>\w+)\.")
_TOLD = re.compile(rf"(?P<ordinal>{'|'.join(ORDINALS)}), \w+ (?P<verb>{'|'.join(_SYMBOL)})\b(?P<rest>[^.]*)")


def read_change(sentence: str) -> tuple[int, Change] | None:
    """Parse a sentence that tells a change of a story.

    Returns:
        The 0-based index of the change and the change itself; None for any other sentence.

    >>> read_change(" Second, Mia doubles the cards.")
    (1, Change(symbol='*', amount=2, verb='doubles'))
    """
    found = _TOLD.search(sentence)
    if found is None:
        return None
    verb, number = found["verb"], re.search(r"\d+", found["rest"])
    amount = {"doubles": 2, "triples": 3}.get(verb) or (int(number[0]) if number else None)
    return None if amount is None else (ORDINALS.index(found["ordinal"]), Change(_SYMBOL[verb], amount, verb))


def read_story(question: str) -> Story | None:
    """Parse the question of a bundled problem; None for any other question."""
    start = _START.match(question)
    told = [read_change(found[0]) for found in _TOLD.finditer(question)]
    if start is None or not told or None in told:
        return None
    changes = tuple(each[1] for each in told if each is not None)
    return Story(start["name"], start["thing"], int(start["start"]), changes)

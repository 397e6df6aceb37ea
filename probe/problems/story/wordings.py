"""Other wordings of the sentences of the story grammar: the content stays, the opening words change where they can.

Every type but one has another opening. A restated change must begin with its ordinal, so only its verb changes
("finds" becomes "buys"); a change whose verb has no alternative has no other wording.
"""

import re

from probe.problems.story.story import NAMES, THINGS

_NAME, _THING = rf"(?:{'|'.join(NAMES)})", rf"(?:{'|'.join(THINGS)})"

#: Pairs of a pattern and its replacement; the first pattern that matches is applied.
_WORDINGS = tuple(
    (re.compile(old), new)
    for old, new in (
        (r"^(\s*)That makes (?=\d)", r"\1Now "),
        (r"^(\s*)(?:Now|Roughly,) (?=\d)", r"\1That makes "),
        (r"^(\s*)Check that (?=\d)", r"\1Is it true that "),
        (r"^(\s*)Is it true that (?=\d)", r"\1Check that "),
        (r"^(\s*)Again, (?=\d)", r"\1Redo it: "),
        (r"^(\s*)Redo it: (?=\d)", r"\1Again, "),
        (r"^(\s*</think>)? So the answer is", r"\1 The answer is"),
        (r"^(\s*</think>)? The answer is", r"\1 So the answer is"),
        (r"^(\s*)The plan is to ", r"\1Let us "),
        (r"^(\s*)Let us ", r"\1The plan is to "),
        (rf"^(\s*){_NAME} likes ({_THING}) a lot\.", r"\1It is fun to have \2."),
        (rf"^(\s*)It is fun to have ({_THING})\.", r"\1By the way, it is fun to have \2."),
        (r"^(\s*)By the way, the weather is nice today\.", r"\1It is fun: the weather is nice today."),
        (r"^(\s*\w+, \w+) finds ", r"\1 buys "),
        (r"^(\s*\w+, \w+) buys ", r"\1 finds "),
        (r"^(\s*\w+, \w+) loses ", r"\1 sells "),
        (r"^(\s*\w+, \w+) sells ", r"\1 loses "),
    )
)


def reword(sentence: str) -> str | None:
    """Reword a sentence of the story grammar, keeping its type and its equation.

    Args:
        sentence: the sentence, with or without a space before it, which is kept.

    Returns:
        The other wording; None where the grammar has none, or for a sentence outside the grammar.

    >>> reword(" Check that 5 + 3 = 9: wrong.")
    ' Is it true that 5 + 3 = 9: wrong.'
    >>> reword("Second, Mia doubles the cards.") is None
    True
    """
    for old, new in _WORDINGS:
        if old.search(sentence):
            return old.sub(new, sentence)
    return None

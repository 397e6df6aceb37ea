"""The words around the equations of a Countdown trace: the problem, aims, comparisons with the target, giving up.

All rules expect text from :func:`~probe.counters.equations.spell`.
"""

import re

from probe.errors import ProbeError


def _rule(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


_LISTED = r"numbers:?\s*\[?(?P<numbers>\d+(?:[,\s]+(?:and\s+)?\d+)+)"
_TASKS = (
    _rule(
        r"(?:calculate|make|reach|obtain|get to|find a way to make)\s+(?P<target>\d+)\s+(?:using|from|with)\s+"
        rf"(?:all(?: of)?\s+|only\s+)?(?:these\s+|the\s+)?{_LISTED}"
    ),
    _rule(rf"(?:using|use|combine|with)\s+(?:all(?: of)?\s+)?(?:these\s+|the\s+)?{_LISTED}\]?[^\d]*?(?P<target>\d+)"),
)

_INTENT = (
    r"\b(?:let's|let us|let me|(?:i|we)(?:'ll| will| can)|(?:can|could) (?:i|we)|if (?:i|we)"
    r"|first|need|want|try|trying|aim|goal|subgoal)\b"
)
_ATTAIN = r"\b(?:get|reach|make|obtain|form|create|build|find|hit|produce|aim)\b"
_STATED_AIM = (
    r"\b(?:aim(?:ing)? (?:for|at)|(?:i|we) (?:now |still |then |first )?need"
    r"|sub-?goal\s*(?:is|:)|intermediate (?:target|goal)\s*(?:is|of|:))"
)
#: An intermediate target (``number``) is announced.
AIM = _rule(
    rf"(?:{_INTENT}[^.;:!?\d]{{0,40}}?{_ATTAIN}|{_STATED_AIM})"
    r"\s*(?:(?:to|close|near|about|around|roughly|an?|the number|the value|for|at)\s+)*"
    r"(?P<number>\d{1,15}(?:\.\d{1,15})?)(?!\s*[-+*/=]|\.?\d)"
)
#: The latest result is given up.
GIVE_UP = _rule(
    r"\b(?:try|take|need|use|consider)\s+(?:\w+\s+){0,2}(?:different|another|other|else|new)\b",
    r"\bsomething else\b",
    r"\bstart(?:ing)? (?:over|again|afresh|anew)",
    r"\bgo(?:ing)? back\b|\bback to\b|\bscratch that\b|\bdead end\b|\balternatively\b",
    r"\b(?:does|did|will|would)(?:n't| not) (?:work|help|lead)",
    r"\binstead,? (?:of|let|i|we|try|use|take|combine|multiply|add|with)\b",
)
#: What follows is computed again on purpose.
CHECKING = _rule(
    r"\b(?:re-?|double[- ]?)?(?:check|verif|confirm)", r"\brecomput|\brecalculat|\bcomput(?:e|ing) (?:it )?again"
)
#: An expression is handed in.
GIVES_ANSWER = _rule(r"\b(?:answer|solution|final|expression)\b", r"<answer>|boxed|</think>")

_COMPARED_WITH = (
    r"(?:≠|[<>]|(?<=\d)\s*=|(?:'s|n't|n't (?:reach|hit|make)|\bnot (?:reach|hit|make))\b"
    r"|\b(?:not|is|equals?|match(?:es)?|reach(?:es|ed)|hits|than|above|below|over|under|past|beyond"
    r"|short of|(?:away|far|off|differs?) from|same as|close to)\b)"
    r"\s*(?:(?:still|only|just|exactly|close|far|equal|to|from|than|below|above|short|of)\s+)*"
)


class Comparison:
    """Matches words that compare the preceding result with the target: by its number, by its name, or by a verdict."""

    def __init__(self, target: object) -> None:
        goal = rf"(?:{target}\b(?!\s*[-+*/]|\.\d)|(?:the\s+|our\s+)?(?:target|goal)\b)"
        self._compares = _rule(
            _COMPARED_WITH + goal,
            r"\btoo (?:high|low|big|small|large|much|little|far)\b",
            r"\b(?:over|under)shoots?\b|\boff by\b|\bclose,? but\b|\bnot (?:quite|there|enough|it)\b",
            r"\bworks[.!]|\b(?:this|that|it) (?:works|fails)\b|\bdoes(?:n't| not) work\b",
            r"[✓✔✗✘]|\bnope\b|(?:^|[,;:])\s*no\b[,.!]",
        )
        # The target is named, but nothing is compared with it.
        self._names = _rule(rf"\b(?:answer|target|goal|number)\s*(?:is|of|=|:|was)?\s*(?:to\s+\w+\s+)?{target}\b")

    def fits(self, words: str) -> bool:
        """Say whether the words compare a result with the target."""
        return self._compares.search(self._names.sub("", words)) is not None


def countdown_problem(text: str) -> tuple[tuple[int, ...], int]:
    """Find the given numbers and the target in the text of a problem or a prompt; of several problems, the last.

    Args:
        text: the problem, or a prompt that ends with it.

    Raises:
        ProbeError: if the text has no Countdown problem.

    >>> countdown_problem("Calculate 126 using all of these numbers: 30, 23, 42, 4.")
    ((30, 23, 42, 4), 126)
    >>> countdown_problem("Using the numbers [19, 36, 55], create an equation that equals 72.")
    ((19, 36, 55), 72)
    """
    found = next((tasks for pattern in _TASKS if (tasks := list(pattern.finditer(text)))), [])
    if not found:
        shown = " ".join(text.split())[:60]
        raise ProbeError(
            f"no Countdown problem was found in '{shown}'; the scheme countdown reads only traces of Countdown"
        )
    last = found[-1]
    return tuple(int(number) for number in re.findall(r"\d+", last["numbers"])), int(last["target"])

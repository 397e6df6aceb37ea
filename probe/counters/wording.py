"""Rules on the wording of a sentence: alternatives, any of which may fit."""

import re


class Wording:
    """Fits a sentence in which one of its regular expressions is found; case and the form of an apostrophe are ignored.

    >>> rule = Wording(r"^wait\\b", r"\\blet's go back\\b")
    >>> rule.fits("Let’s go back."), rule.fits("The waiter waits.")
    (True, False)
    """

    def __init__(self, *alternatives: str) -> None:
        self.alternatives = alternatives
        self._pattern = re.compile("|".join(alternatives), re.IGNORECASE)

    def __or__(self, other: "Wording") -> "Wording":
        return Wording(*self.alternatives, *other.alternatives)

    def fits(self, sentence: str) -> bool:
        return self._pattern.search(sentence.strip().replace("’", "'")) is not None

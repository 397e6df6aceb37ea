"""Rules on the wording of a sentence, as regular expressions."""

import re


class Wording:
    """Matches a sentence that contains one of its regular expressions, ignoring case and the form of apostrophes.

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
        """Say whether the sentence matches."""
        return self._pattern.search(sentence.strip().replace("’", "'")) is not None

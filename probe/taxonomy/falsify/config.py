"""Settings of the falsification cards, and the written rule of their verdict."""

from dataclasses import dataclass

from probe.config import check_above_zero, check_least
from probe.errors import ProbeError


@dataclass(frozen=True)
class FalsifyConfig:
    """How behaviours are put to the test.

    Raises:
        ProbeError: if a setting makes no sense, alone or beside another.
    """

    sentences: int = 60
    """The most sentences a test."""
    cue_words: int = 3
    """The most openings, and the most other words, that count as a behaviour's cues."""
    max_effect: float = 0.25
    """What a cue may do: the share of unrelated sentences in which it fires with the cue, beyond other words."""
    min_retention: float = 0.5
    """The share of the behaviour's sentences that must still fire without their cues."""
    prefixes: int = 20
    """The most sentences that are written anew from the text before them."""
    samples: int = 10
    """How often each is written anew."""
    stable: float = 0.8
    """It is stable if at least this share of its samples shows the behaviour again."""
    temperature: float = 0.7
    top_p: float = 0.95
    max_new_tokens: int = 128
    """The most tokens of a sentence that is written anew."""
    content_directions: int = 4
    """How many directions in which questions differ are projected out."""
    batch_tokens: int = 8192
    """How many tokens, padding included, the model is given at once."""

    def __post_init__(self) -> None:
        check_least("falsify", self, sentences=1, cue_words=1, prefixes=0, samples=1, max_new_tokens=1)
        check_least("falsify", self, content_directions=1, batch_tokens=1)
        check_above_zero("falsify", self, "temperature", "top_p", "stable", "max_effect", "min_retention")
        for name in ("top_p", "stable", "max_effect", "min_retention"):
            if getattr(self, name) > 1:
                raise ProbeError(f"falsify.{name} is {getattr(self, name)}; it is a share, so choose at most 1")

    @property
    def rule(self) -> str:
        """How the verdict is reached, in words; every comparison is made with the end of a 95 % interval."""
        effect, kept = f"{self.max_effect:.0%}", f"{self.min_retention:.0%}"
        return (
            f"cue: its cue words make it fire in more than {effect} of unrelated sentences beyond what other words do; "
            f"or fewer than {kept} of its sentences fire without their cue words, and more than {effect} more do "
            f"without as many other words; or fewer than {kept} of its sentences fire in another wording. "
            f"state: its cue words do so in at most {effect}, and at least {kept} of its sentences fire without their "
            f"cue words and, where it was tried, in another wording, which fires more often than other sentences in "
            f"another wording do; and it is not that fewer than {kept} of its sentences fire once what the questions "
            "are about is projected out. undecided: all else"
        )

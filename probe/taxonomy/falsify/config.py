"""Settings of the falsification tests, and the fixed rule of the verdict."""

from dataclasses import dataclass

from probe.config import check_above_zero, check_least
from probe.errors import ProbeError


@dataclass(frozen=True)
class FalsifyConfig:
    """How behaviours are tested.

    Raises:
        ProbeError: if a setting is invalid.
    """

    sentences: int = 60
    """Maximum number of sentences in each test."""
    cue_words: int = 3
    """Maximum number of openings, and of other words, that count as cues of a behaviour."""
    max_effect: float = 0.25
    """The verdict is "cue" if cue words make the behaviour fire in more than this share of unrelated sentences, beyond
    what other words do."""
    min_retention: float = 0.5
    """Minimum share of the behaviour's sentences that must still fire without their cues."""
    prefixes: int = 20
    """Maximum number of sentences that are sampled again from the text before them; 0 skips this test."""
    samples: int = 10
    """The number of samples for each of these sentences."""
    stable: float = 0.8
    """A sentence is stable if at least this share of its samples shows the behaviour again."""
    temperature: float = 0.7
    """The sampling temperature."""
    top_p: float = 0.95
    """The probability mass of nucleus sampling."""
    new_tokens: int = 128
    """Maximum number of tokens of a sampled sentence."""
    content_directions: int = 4
    """The number of directions in which questions differ that are projected out."""
    batch_tokens: int = 8192
    """Maximum number of tokens, padding included, that the model reads at once."""

    def __post_init__(self) -> None:
        check_least("falsify", self, sentences=1, cue_words=1, prefixes=0, samples=1, new_tokens=1)
        check_least("falsify", self, content_directions=1, batch_tokens=1)
        check_above_zero("falsify", self, "temperature", "top_p", "stable", "max_effect", "min_retention")
        for name in ("top_p", "stable", "max_effect", "min_retention"):
            if getattr(self, name) > 1:
                raise ProbeError(f"falsify.{name} is {getattr(self, name)}; a share is at most 1")

    @property
    def rule(self) -> str:
        """The rule of the verdict, in words; every comparison uses the end of a 95 % interval."""
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

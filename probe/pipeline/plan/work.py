"""What one stage of a run does: tokens through each model, and the memory and the disk that it takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from probe.pipeline.plan.costs import Need

ROLES: tuple[str, ...] = ("base", "thinking")


@dataclass(frozen=True)
class Passes:
    """Tokens that run through a model; a token that runs through half of the blocks counts as half.

    Attributes:
        read: tokens of whole texts. The backward pass of a token counts as one token more, as does each pass that
            checkpointing repeats.
        decoded: tokens that are run one after the other, each in one step with a token of every other row.
        rows: how many rows are decoded together at most.
        row: the bytes of each of these rows.
    """

    read: float = 0.0
    decoded: float = 0.0
    rows: int = 1
    row: float = 0.0

    @property
    def tokens(self) -> float:
        """All tokens."""
        return self.read + self.decoded

    def __add__(self, other: "Passes") -> "Passes":
        return Passes(
            self.read + other.read,
            self.decoded + other.decoded,
            max(self.rows, other.rows),
            max(self.row, other.row),
        )

    def __mul__(self, times: float) -> "Passes":
        return replace(self, read=self.read * times, decoded=self.decoded * times)


@dataclass(frozen=True)
class Stage:
    """A stage of a run.

    Attributes:
        name: what it is called in the table.
        folders: the parts of the run's folder in which its results are; if all are finished, it is not run again.
        passes: tokens through each model, by role; at most, where training may end early.
        needs: memory besides the weights on the device of each model, by role.
        together: whether both models work at the same time.
        host: bytes in the memory of the machine.
        disk: bytes on disk.
        setting: the setting that makes it smaller.
        says: what the numbers assume.
    """

    name: str
    folders: tuple[str, ...]
    passes: Mapping[str, Passes] = field(default_factory=dict)
    needs: Mapping[str, Need] = field(default_factory=dict)
    together: bool = False
    host: float = 0.0
    disk: float = 0.0
    setting: str = "decoding.max_new_tokens"
    says: str = ""

    def need(self, roles: set[str]) -> Need:
        """What it needs on a device that holds these models."""
        total = Need()
        for role in sorted(roles):
            each = self.needs.get(role, Need())
            total = total + each if self.together else total | each
        return total


@dataclass(frozen=True)
class Texts:
    """How long the texts of a run are expected to be.

    Attributes:
        tokens: emitted tokens of a trace.
        prompt: tokens of a prompt.
        sentence: tokens of a sentence.
    """

    tokens: int
    prompt: int = 200
    sentence: int = 25

    @property
    def whole(self) -> int:
        """Tokens of a trace with its prompt."""
        return self.tokens + self.prompt

    @property
    def sentences(self) -> float:
        """Sentences of a trace."""
        return max(1.0, self.tokens / self.sentence)

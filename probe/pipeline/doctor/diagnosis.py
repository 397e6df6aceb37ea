"""The state of an installation as a list of facts; this file needs nothing that may be broken."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from textwrap import fill
from typing import Any, Literal

from probe.html import html_table

State = Literal["ok", "absent", "wrong"]
"""``absent`` is something optional that is not there; ``wrong`` needs an action."""


@dataclass(frozen=True)
class Fact:
    """Something about the installation or the machine."""

    group: str
    """What it is about: ``packages``, ``extras``, ``machine``, ``disk``, ``hub`` or ``environment``."""
    name: str
    """The package, device, folder or variable."""
    found: str
    """What was found there."""
    state: State = "ok"
    """Whether something has to be done."""
    fix: str = ""
    """What to do, or what would add it; empty if there is nothing to do."""


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """The state of an installation. Jupyter shows it as a table, and so does ``print``."""

    facts: tuple[Fact, ...]
    """Everything that was looked at, in order."""

    @property
    def wrong(self) -> tuple[Fact, ...]:
        """The facts that need an action."""
        return tuple(fact for fact in self.facts if fact.state == "wrong")

    @property
    def summary(self) -> str:
        """Whether anything is wrong, in one line."""
        names = ", ".join(fact.name for fact in self.wrong)
        return f"{len(self.wrong)} wrong: {names}" if names else "nothing is wrong"

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as plain JSON values."""
        return {"wrong": len(self.wrong), "facts": [asdict(fact) for fact in self.facts]}

    def _rows(self) -> list[tuple[str, str, str]]:
        marks: dict[State, str] = {"ok": "", "absent": "-", "wrong": "!"}
        return [
            (marks[fact.state], fact.name, fact.found + (f"; {fact.fix}" if fact.fix else "")) for fact in self.facts
        ]

    def __repr__(self) -> str:
        return f"Diagnosis({len(self.facts)} facts, {self.summary})"

    def __str__(self) -> str:
        return self.text()

    def text(self, width: int | None = None) -> str:
        """Write a line for each fact, and the summary.

        Args:
            width: lines that are longer are broken; None breaks none.
        """
        rows = self._rows()
        names = max(len(name) for _, name, _ in rows)
        lines = [f"{mark:1} {name:{names}}  {found}" for mark, name, found in rows]
        if width is not None:
            indent = " " * (names + 4)
            lines = [
                fill(
                    line,
                    max(width, names + 24),
                    subsequent_indent=indent,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
                for line in lines
            ]
        return "\n".join([*lines, self.summary])

    def _repr_html_(self) -> str:
        return html_table(["", "", "found"], self._rows(), self.summary)


def guarded(group: str, name: str, look: Callable[[], Iterable[Fact]]) -> list[Fact]:
    """Look at something that may be broken in any way.

    Args:
        group, name: of the fact that is reported if looking fails.
        look: gives facts.

    Returns:
        The facts. If looking fails, one that says why.
    """
    try:
        return list(look())
    except Exception as error:  # a broken installation may raise anything
        return [Fact(group, name, f"cannot be read: {said(error)}", "wrong", "install the package again")]


def said(error: BaseException) -> str:
    """An error in one line of at most 160 characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 160 else f"{text[:157]}..."

"""The result of checking a model: a verdict, the measured number and the reason of each check."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from probe.html import html_table

Verdict = Literal["passed", "failed", "not applicable", "measured"]
"""What a check found. ``measured``: a number that is neither right nor wrong."""


@dataclass(frozen=True)
class Check:
    """One check of a model."""

    group: str
    """What is checked: ``tokenizer``, ``weights``, ``sites``, ``passes``, ``decoding`` or ``language``."""
    name: str
    """What should hold, such as ``batched = single``."""
    verdict: Verdict
    """Whether it holds."""
    why: str
    """What was found, in plain words, and what to do where it is wrong."""
    value: float | None = None
    """The measured number; None if nothing was measured."""
    limit: float | None = None
    """The largest value that passes; None if there is no limit."""

    @property
    def shown(self) -> tuple[str, str, str, str, str]:
        """The row of the table."""
        return self.name, self.verdict, _number(self.value), _number(self.limit), self.why


@dataclass(frozen=True, repr=False)
class Checks(Sequence[Check]):
    """All checks of a model. Jupyter shows them as a table, and so does ``print``."""

    model: str
    """The model in one line."""
    checks: tuple[Check, ...]
    """The checks, in the order in which they were made."""
    seconds: float
    """The time that the checks took, without loading."""

    columns = ("check", "verdict", "measured", "limit", "what was found")

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.verdict == "failed")

    @property
    def summary(self) -> str:
        """The number of checks with each verdict, in one line."""
        kinds = ("passed", "failed", "not applicable", "measured")
        counts = {kind: sum(check.verdict == kind for check in self.checks) for kind in kinds}
        said = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        return f"{said}; {self.seconds:.0f} s"

    def sentences(self) -> list[str]:
        """Return what was found where a check did not simply pass, the failed checks first, and the summary."""
        kinds: tuple[Verdict, ...] = ("failed", "measured", "not applicable")
        told = [
            f"{check.name} ({check.verdict}): {check.why}" for kind in kinds for check in self if check.verdict == kind
        ]
        return [*told, self.summary]

    def __getitem__(self, index: Any) -> Any:
        """Return a check by its number, or by its name.

        Raises:
            KeyError: if no check has the name.
        """
        if not isinstance(index, str):
            return self.checks[index]
        found = [check for check in self.checks if check.name == index]
        if not found:
            raise KeyError(index)
        return found[0]

    def __len__(self) -> int:
        return len(self.checks)

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Return the checks as plain JSON values."""
        return {
            "model": self.model,
            "failed": len(self.failed),
            "seconds": round(self.seconds, 1),
            "checks": [asdict(check) for check in self.checks],
        }

    def __repr__(self) -> str:
        return f"Checks({self.model}: {self.summary})"

    def __str__(self) -> str:
        rows = [check.shown for check in self.checks]
        widths = [max(map(len, column)) for column in zip(self.columns, *rows, strict=True)]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (self.columns, *rows)
        )
        return "\n".join([self.model, *lines, self.summary])

    def _repr_html_(self) -> str:
        return html_table(self.columns, [check.shown for check in self.checks], f"{self.model}: {self.summary}")


def _number(value: float | None) -> str:
    """A number with two digits.

    >>> _number(0.0), _number(3.0), _number(0.0312), _number(2.1e-7), _number(None)
    ('0', '3', '0.031', '2.1e-07', '')
    """
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e6 else f"{value:.2g}"

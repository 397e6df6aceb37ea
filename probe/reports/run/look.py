"""The look of a run: tables for the terminal, and the rows of its section in the report."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from probe.reports.html.numbers import estimate, number, percent, plural, points
from probe.reports.html.terminal import add_row, terminal_table

if TYPE_CHECKING:
    from rich.console import RenderableType

ROLES = ("base", "thinking")
Number = float | None
Ends = tuple[Number, Number] | None
_LONGEST = 120
"""The maximum number of characters of an answer in a table."""


class Looked(TypedDict, total=False):
    """The answers of one model in a look."""

    name: str
    sampling: str
    accuracy: Number
    ci: Ends
    n: int
    no_answer: Number
    truncated: Number
    looping: Number
    repetition: Number
    compression: Number
    tokens_per_answer: Number


class LookVerdict(TypedDict):
    """A verdict of a look."""

    name: str
    model: str | None
    stops: bool
    finding: str
    remedy: str


class FoundAnswer(TypedDict):
    """The answer that was found in a text."""

    answer: str | None
    correct: bool | None


class LookExample(TypedDict):
    """The answers of both models to a problem."""

    problem_id: str
    answer: str
    base: FoundAnswer
    thinking: FoundAnswer


class LookProblems(TypedDict):
    """The problems of a look."""

    name: str
    split: str
    n: int


class Difference(TypedDict):
    """Accuracy of the thinking model minus accuracy of the base model."""

    value: Number
    ci: Ends


class Look(TypedDict):
    """The look of a run before its first stage."""

    pair: str
    problems: LookProblems
    max_new_tokens: int
    models: dict[str, Looked]
    difference: Difference
    verdicts: list[LookVerdict]
    shown: list[LookExample]


def look_tables(look: Mapping[str, Any]) -> "list[RenderableType]":
    """Tabulate a look for the terminal: both models, some answers next to the known ones, and the verdicts.

    Args:
        look: the contents of ``look.json``.
    """
    from rich.text import Text

    models = terminal_table(
        ("model", "correct", "cut", "loops", "no answer", "tokens"),
        caption="Shares of the answers. cut: at the limit on tokens · loops: they end in one\n"
        "no answer: none was found · tokens: mean length of an answer",
    )
    for role in ROLES:
        told = look["models"][role]
        shares = [percent(told[name]) for name in ("truncated", "looping", "no_answer")]
        correct = estimate({"value": told["accuracy"], "ci": told["ci"]})
        add_row(models, (role, correct, *shares, number(told["tokens_per_answer"], 0)))
    answers = terminal_table(
        ("problem", "known", *ROLES), caption="The answers that were found. ✓ right · ✗ wrong · ? not graded", left=4
    )
    for each in look["shown"]:
        add_row(answers, (each["problem_id"], _short(each["answer"]), *(found_answer(each[role]) for role in ROLES)))
    verdicts = "\n".join(verdict_lines(look))
    return [Text(look_title(look)), models, Text("\n".join(look_lines(look)) + "\n"), answers, Text(f"\n{verdicts}\n")]


def look_title(look: Mapping[str, Any]) -> str:
    """Say which problems the look used."""
    problems = look["problems"]
    asked = f"{plural(problems['n'], problems['split'] + ' problem')} of {problems['name']}"
    return f"{look['pair']} · a look at {asked}, at most {plural(look['max_new_tokens'], 'token')}"


def look_lines(look: Mapping[str, Any]) -> list[str]:
    """Say how the models differ and how they were sampled."""
    sampled = [f"{role} {look['models'][role]['sampling']}" for role in ROLES]
    found = look["difference"]
    ci = "" if found["ci"] is None else f" [{', '.join(points(end) for end in found['ci'])}]"
    return [f"difference {points(found['value'])} points{ci}", f"sampling   {'; '.join(sampled)}"]


def verdict_lines(look: Mapping[str, Any]) -> list[str]:
    """Write each verdict as a line."""
    lines = [
        f"{'stops' if verdict['stops'] else 'note'}: {verdict['finding']} → {verdict['remedy']}"
        for verdict in look["verdicts"]
    ]
    return lines or ["Both models answer, and the thinking model is better."]


def found_answer(found: Mapping[str, Any]) -> str:
    """Write the answer that was found in a text, with its grade."""
    mark = {True: "✓", False: "✗", None: "?"}[found["correct"]]
    return f"{mark} {'no answer' if found['answer'] is None else _short(found['answer'])}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"

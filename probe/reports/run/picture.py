"""A static picture of one answer, for a page or a paper: the base model alone, and where the hybrid is steered."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from probe.config import read_as
from probe.errors import ProbeError
from probe.html import behaviour_colour
from probe.reports.run.columns import page_tokens

_WIDTH, _MARGIN, _CHAR, _LINE = 860, 24, 8.0, 25
"""Pixels: the width of the picture, its margin, a character and a line."""
_COLUMNS = int((_WIDTH - 2 * _MARGIN) / _CHAR)
_LIGHT = ("#1b1d20", "#5b6068", "#00735c", "#b3400d")
_DARK = ("#e9e7e2", "#a4a9b1", "#4fd0ac", "#ff9a66")
"""The colours of text, of side remarks, of right and of wrong answers; as on the pages of reports."""
_NONE = "#7d8590"
"""The colour behind tokens that were steered towards no behaviour."""
_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def trace_picture(run: str | Path, problem: str | None = None, *, arm: str = "hybrid", dark: bool = False) -> str:
    """Draw one problem of a run's report as SVG: the question, the base model's answer, and that of an arm.

    Steered tokens have the colour of their behaviour.

    Args:
        run: the folder of a run.
        problem: the id of the problem; None for the one with the shortest answer among those that the arm solves and
            the base model does not.
        arm: an arm that is decoded token by token.
        dark: draw for a dark page.

    Raises:
        ProbeError: if the run shows no such problem.
    """
    folder = Path(run).expanduser()
    shown = read_as(list[dict[str, Any]], folder / "shown.json")
    names = [each["label"] for each in read_as(list[dict[str, Any]], folder / "behaviours.json")]
    chosen = _chosen(shown, problem, arm)
    ink, soft, right, wrong = _DARK if dark else _LIGHT
    answers, y = chosen["arms"], 34
    parts: list[str] = []

    def heading(text: str, colour: str = soft) -> None:
        nonlocal y
        parts.append(f'<text x="{_MARGIN}" y="{y}" fill="{colour}" font-size="13">{escape(text)}</text>')
        y += _LINE

    def graded(name: str) -> tuple[str, str]:
        kinds = {True: ("right", right), False: ("wrong", wrong), None: ("not graded", soft)}
        return kinds[answers[name]["correct"]]

    def block(title: str, pieces: Sequence[tuple[str, int | None]], colour: str = soft) -> None:
        nonlocal y
        heading(title, colour)
        marks, lines = _flowed(pieces, y, ink)
        parts.extend(marks)
        y += lines * _LINE + 14

    block("question", [(chosen["question"], None)])
    said, colour = graded("base")
    block(f"base model: {said}", [(_text(answers["base"]), None)], colour)
    pieces = list(_pieces(answers[arm]["tokens"]))
    steered = sum(behaviour is not None for _, behaviour in pieces)
    said, colour = graded(arm)
    block(f"{arm}, which changes {steered} of {len(pieces)} tokens: {said}", pieces, colour)
    for k in sorted({behaviour for _, behaviour in pieces if behaviour is not None and behaviour >= 0}):
        parts.append(_box(_MARGIN, y, 2, behaviour_colour(k)) + _said(_MARGIN + _CHAR / 2, y, str(k), "#ffffff"))
        parts.append(_said(_MARGIN + 4 * _CHAR, y, names[k], soft))
        y += _LINE
    title = escape(f"One answer of the base model and of {arm}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}" '
        f'font-family="{_FONT}" font-size="13.3" role="img"><title>{title}</title>{"".join(parts)}</svg>\n'
    )


def _chosen(shown: Sequence[Mapping[str, Any]], problem: str | None, arm: str) -> Mapping[str, Any]:
    drawable = [each for each in shown if "tokens" in each["arms"].get(arm, {}) and "base" in each["arms"]]
    if problem is not None:
        found = [each for each in drawable if each["problem_id"] == problem]
    else:
        found = [each for each in drawable if each["arms"][arm]["correct"] and each["arms"]["base"]["correct"] is False]
        found.sort(key=lambda each: len(each["arms"][arm]["tokens"]["emitted"]))
    if not found:
        which = "problem that the arm solves and the base model does not" if problem is None else f"problem {problem!r}"
        raise ProbeError(f"the run shows no {which} with an answer of {arm!r}; name another problem or arm")
    return found[0]


def _text(answer: Mapping[str, Any]) -> str:
    return answer["text"] if "text" in answer else "".join(text for text, _ in _pieces(answer["tokens"]))


def _pieces(columns: Any) -> Iterator[tuple[str, int | None]]:
    """The text of each token, and the behaviour with which it was steered; -1 stands for no behaviour."""
    for token in page_tokens(columns):
        if isinstance(token, str):
            yield token, None
        else:
            text, steered, behaviour = token[:3]
            yield text, (-1 if behaviour is None else behaviour) if steered else None


def _flowed(pieces: Sequence[tuple[str, int | None]], y: float, ink: str) -> tuple[list[str], int]:
    """Draw text in lines that end between words, and count the lines."""
    marks, line, column = [], 0, 0
    for word in _words(pieces):
        width = sum(len(text) for text, _ in word)
        if column and column + width > _COLUMNS:
            line, column = line + 1, 0
        for i, (piece, behaviour) in enumerate(word):
            text = piece.lstrip() if column == 0 and i == 0 else piece
            x, at = _MARGIN + column * _CHAR, y + line * _LINE
            shown = text.strip()
            left = x + (len(text) - len(text.lstrip())) * _CHAR
            if behaviour is not None and shown:
                marks.append(_box(left - 2, at, len(shown) + 0.5, _colour(behaviour)))
            if shown:
                marks.append(_said(left, at, shown, ink if behaviour is None else "#ffffff"))
            column += len(text)
    return marks, line + 1


def _colour(behaviour: int) -> str:
    return _NONE if behaviour < 0 else behaviour_colour(behaviour)


def _words(pieces: Sequence[tuple[str, int | None]]) -> Iterator[list[tuple[str, int | None]]]:
    """Pieces that a line may not divide: a new word begins with white space."""
    word: list[tuple[str, int | None]] = []
    for text, behaviour in pieces:
        parts = [text] if behaviour is not None else _divided(text)
        for part in parts:
            if part[:1].isspace() and word:
                yield word
                word = []
            word.append((part, behaviour))
    if word:
        yield word


def _divided(text: str) -> list[str]:
    words = " ".join(text.split("\n")).split(" ")
    return [word if i == 0 else f" {word}" for i, word in enumerate(words) if word or i]


def _box(x: float, y: float, characters: float, colour: str) -> str:
    return f'<rect x="{x:g}" y="{y - 15:g}" width="{characters * _CHAR:g}" height="20" rx="4" fill="{colour}"/>'


def _said(x: float, y: float, text: str, colour: str) -> str:
    # Whatever font there is, the text has the width that the line was made for.
    size = f'textLength="{len(text) * _CHAR:g}" lengthAdjust="spacingAndGlyphs"'
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" xml:space="preserve" {size}>{escape(text)}</text>'

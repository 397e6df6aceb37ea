"""One rollout as its record gives it, before it is turned into tokens."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from probe.models import ThinkTags
from probe.problems import Grade

Record: TypeAlias = Mapping[str, Any]


class Reject(Exception):
    """A rollout that cannot be imported; the message is the reason."""


@dataclass(frozen=True)
class Raw:
    """One rollout as its record gives it. What the record does not give is None."""

    text: str | None = None
    """The whole text after the prompt, unchanged."""
    thinking: str | None = None
    """The thinking, if the record separates it from the answer; ``content`` is then the answer."""
    content: str | None = None
    """The text after the thinking."""
    tokens: tuple[int, ...] | None = None
    """The token ids of the text after the prompt."""
    question: str | None = None
    """The question, without the prompt around it."""
    prompt: str | None = None
    """The text of the prompt that the author read."""
    prompt_tokens: tuple[int, ...] | None = None
    """The token ids of the prompt."""
    gold: str | None = None
    """The known answer, or a solution that contains it."""
    author: str | None = None
    """The model that wrote the rollout."""
    problem_id: str | None = None
    """The name of the problem."""
    sample: int | None = None
    """The number of the rollout among the rollouts of its problem."""
    truncated: bool | None = None
    """Whether a limit on new tokens stopped the rollout."""
    correct: bool | None = None
    """Whether the record says that the answer is right."""
    split: str | None = None
    """The split of the problem."""
    grader: str | None = None
    """How the record's answer was graded."""
    grade: Grade | None = None
    """The complete grade, if the record has one."""
    think_tags: ThinkTags | None = None
    """The tags around the thinking, if the record names them."""
    problems: str | None = None
    """The name of its problem set."""
    remark: str | None = None
    """What part of the record is lost, for the summary."""


@dataclass(frozen=True)
class Shape:
    """A shape of records."""

    name: str
    """The name of the shape in the summary and in ``import.json``."""
    fits: Callable[[Record], bool]
    """Whether a record has this shape."""
    read: Callable[[Record], Iterator[Raw]]
    """Yields the rollouts of a record; raises :class:`Reject` for a record without one."""
    author: str | None = None
    """The model that wrote all records of this shape, if it is known."""


def text_of(value: Any, key: str) -> str | None:
    """A value as text; None if there is none.

    Raises:
        Reject: if it is neither text nor a number.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        # Content in parts, as in chat APIs.
        parts = [part.get("text") for part in value if part.get("type", "text") in ("text", "output_text")]
        if all(isinstance(part, str) for part in parts):
            return "".join(part for part in parts if part)
    if not isinstance(value, bool) and isinstance(value, int | float | Decimal) and math.isfinite(value):
        return str(value)
    raise Reject(f"{key!r} is {_short(value)}, not text")


def ids_of(value: Any, key: str) -> tuple[int, ...] | None:
    """A value as token ids; None if there is none.

    Raises:
        Reject: if it is not a list of whole numbers.
    """
    if value is None:
        return None
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    if listed and all(isinstance(each, int) and not isinstance(each, bool) for each in value):
        return tuple(value)
    raise Reject(f"{key!r} is not a list of token ids")


def number_of(value: Any) -> int | None:
    """A value as a non-negative whole number; None if it is not one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def name_of(value: Any) -> str | None:
    """A value as a name; None if it is empty or not a name."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value) or None


def first_of(record: Record, keys: Sequence[str]) -> tuple[str, Any]:
    """The first key under which a record has a value, and that value; the first key and None if no key has one."""
    return next(((key, record[key]) for key in keys if record.get(key) is not None), (keys[0], None))


def cut(reason: Any) -> bool | None:
    """Whether a finish reason says that a limit on tokens was reached; None if no reason is given."""
    if reason is None or reason == "":
        return None
    return str(reason).lower() in ("length", "max_tokens", "max_length", "max_output_tokens", "model_length")


def _short(value: Any) -> str:
    try:
        said = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        said = repr(value)
    return said if len(said) <= 60 else f"{said[:57]}..."

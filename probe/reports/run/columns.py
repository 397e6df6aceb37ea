"""The emitted tokens of a trace in ``shown.json``: columns, in which each text is written once.

``texts`` has the distinct texts, and other columns their numbers. ``emitted`` has one entry for each token. ``base``
and ``thinking`` (what each model would have emitted) list only the tokens ``at`` which that is another ``text``; where
the thinking model did not run, that is -1, and ``thinking`` is None if it never ran. ``steered`` lists the tokens
``at`` which the arm was steered, with the behaviour and the strength.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from probe.errors import ProbeError


class Others(TypedDict):
    """The tokens at which a model would have emitted another text."""

    at: list[int]
    text: list[int]


class Steered(TypedDict):
    """The tokens that were steered."""

    at: list[int]
    behaviour: list[int | None]
    strength: list[float | None]


class Columns(TypedDict):
    """The emitted tokens of one arm."""

    texts: list[str]
    emitted: list[int]
    base: Others
    thinking: Others | None
    steered: Steered


def to_columns(tokens: Sequence[Mapping[str, Any]]) -> Columns:
    """Turn tokens, one mapping each, into columns.

    Args:
        tokens: the ``text`` of each, whether it was ``steered``, with which ``behaviour`` and ``strength``, and the
            texts that ``base`` and ``thinking`` would have emitted; ``thinking`` is None where it did not run.
    """
    texts: dict[str, int] = {}

    def number(text: str | None) -> int:
        return -1 if text is None else texts.setdefault(text, len(texts))

    emitted = [number(token["text"]) for token in tokens]

    def others(model: str) -> Others:
        at = [i for i, token in enumerate(tokens) if token.get(model) != token["text"]]
        return {"at": at, "text": [number(tokens[i].get(model)) for i in at]}

    asked = any(token.get("thinking") is not None for token in tokens)
    steered = [i for i, token in enumerate(tokens) if token.get("steered")]
    return {
        "emitted": emitted,
        "base": others("base"),
        "thinking": others("thinking") if asked else None,
        "steered": {
            "at": steered,
            "behaviour": [tokens[i].get("behaviour") for i in steered],
            "strength": [tokens[i].get("strength") for i in steered],
        },
        "texts": list(texts),
    }


def page_tokens(columns: Columns) -> list[str | list[Any]]:
    """The tokens as a page holds them.

    Returns:
        An unsteered token on which both models agree is its text alone; any other is
        ``[text, steered, behaviour, strength, base, thinking]``.
    """
    texts = [*columns["texts"], None]  # -1 is the last one
    said: list[Any] = [texts[i] for i in columns["emitted"]]
    asked = columns["thinking"] is not None
    full: dict[int, list[Any]] = {}

    def at(i: int) -> list[Any]:
        return full.setdefault(i, [said[i], 0, None, None, said[i], said[i] if asked else None])

    for place, others in ((4, columns["base"]), (5, columns["thinking"])):
        for i, text in zip(others["at"], others["text"], strict=True) if others else ():
            at(i)[place] = texts[text]
    steered = columns["steered"]
    for i, behaviour, strength in zip(steered["at"], steered["behaviour"], steered["strength"], strict=True):
        at(i)[1:4] = 1, behaviour, strength
    tokens: list[Any] = [full.get(i, text) for i, text in enumerate(said)]
    return tokens


def check_columns(columns: Columns, where: str) -> None:
    """Refuse columns that do not fit together.

    Raises:
        ProbeError: beginning with ``where``.
    """
    n_tokens, n_texts = len(columns["emitted"]), len(columns["texts"])
    steered, others = columns["steered"], [each for each in (columns["base"], columns["thinking"]) if each]
    fits = (
        len(steered["at"]) == len(steered["behaviour"]) == len(steered["strength"])
        and all(len(each["at"]) == len(each["text"]) for each in others)
        and all(0 <= i < n_texts for i in columns["emitted"])
        and all(-1 <= i < n_texts for each in others for i in each["text"])
        and all(0 <= i < n_tokens for each in (steered, *others) for i in each["at"])
    )
    if not fits:
        raise ProbeError(f"{where}: the columns of its tokens do not fit together")

"""The emitted tokens of a trace in ``shown.json``: columns, in which each text is written once.

``texts`` has the distinct texts, and other columns their numbers. ``emitted`` has one entry for each token. ``base``
and ``thinking`` (what each model would have emitted) list only the tokens ``at`` which that is another ``text``; where
the thinking model did not run, that is -1, and ``thinking`` is None if it never ran. ``steered`` lists the tokens
``at`` which the arm was steered, with the behaviour and the strength.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Int

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


def page_tokens(columns: Columns, keep: Sequence[int] | None = None) -> list[str | list[Any]]:
    """The tokens as a page holds them.

    Args:
        keep: which tokens, in order; all if None.

    Returns:
        An unsteered token on which both models agree is its text alone; any other is
        ``[text, steered, behaviour, strength, base, thinking]``.
    """
    texts = [*columns["texts"], None]  # -1 is the last one
    emitted, asked, steered = columns["emitted"], columns["thinking"] is not None, columns["steered"]
    places = range(len(emitted)) if keep is None else keep
    base, thinking = (
        dict(zip(others["at"], others["text"], strict=True)) if others else {}
        for others in (columns["base"], columns["thinking"])
    )
    how = {
        i: (1, behaviour, strength)
        for i, behaviour, strength in zip(steered["at"], steered["behaviour"], steered["strength"], strict=True)
    }

    def token(i: int) -> str | list[Any]:
        said = emitted[i]
        if not (i in how or i in base or i in thinking):
            return columns["texts"][said]
        other = texts[thinking.get(i, said)] if asked else None
        return [texts[said], *how.get(i, (0, None, None)), texts[base.get(i, said)], other]

    return [token(i) for i in places]


def page_sizes(columns: Columns, size: Callable[[Any], int]) -> Int[np.ndarray, " tokens"]:
    """How many bytes each token takes on a page, without writing the tokens.

    Args:
        size: the bytes of a value as JSON, with the comma and the space after it. It is called with each text once.
    """
    null = size(None)
    texts = np.array([*map(size, columns["texts"]), null])  # -1 is the last one
    emitted = np.array(columns["emitted"], dtype=int)
    said = texts[emitted]
    base, thinking = said.copy(), said.copy() if columns["thinking"] is not None else np.full_like(said, null)
    full = np.zeros(len(said), dtype=bool)
    for column, others in ((base, columns["base"]), (thinking, columns["thinking"])):
        if others:
            column[others["at"]] = texts[others["text"]]
            full[others["at"]] = True
    how = np.full_like(said, 2 * null)
    steered = columns["steered"]
    how[steered["at"]] = [size(k) + size(s) for k, s in zip(steered["behaviour"], steered["strength"], strict=True)]
    full[steered["at"]] = True
    # The last value in a token's brackets has no comma, so that they add two bytes.
    return np.where(full, said + size(0) + how + base + thinking + 2, said)


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

"""Whether two sentences say the same: the default, which needs no model."""

import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from math import sqrt

Alike = Callable[[str, str], bool]
"""Whether two sentences have the same meaning."""
_LEAST = 0.8
"""The smallest cosine of two sentences that say the same, as in the papers."""
_WORD = re.compile(r"[^\W\d_]+")
_SIGN = re.compile(r"\d+(?:[.,]\d+)*|[-+*/=<>^×÷≤≥≠±√]|\\[a-zA-Z]+")


def say_the_same(one: str, other: str) -> bool:
    """Whether two sentences have the same numbers and signs in the same order, and nearly the same words.

    Two sentences of which only a number differs are nearly the same for embeddings, and as far apart as can be for the
    answer. So numbers and signs must be equal; words are compared by the cosine of their counts, at least 0.8 as in
    *Thought Anchors* (2506.19143). Embeddings are better at other wordings of one thought; give a function that uses
    them where that matters.

    >>> say_the_same("So 22 + 9 = 31.", "22 + 9 = 31"), say_the_same("22 + 9 = 31.", "22 + 9 = 32.")
    (True, False)
    """
    (words, signs), (others, other_signs) = _parts(one), _parts(other)
    if signs != other_signs:
        return False
    if signs and not (words and others):
        return True
    dot = sum(count * others[word] for word, count in words.items())
    size = sqrt(sum(n * n for n in words.values()) * sum(n * n for n in others.values()))
    return dot >= _LEAST * size - 1e-9 if size else one.split() == other.split()


@lru_cache(maxsize=8192)  # those of one place
def _parts(text: str) -> tuple[Counter[str], tuple[str, ...]]:
    return Counter(_WORD.findall(text.lower())), tuple(_SIGN.findall(text.replace(",", "")))

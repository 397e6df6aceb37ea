"""Degeneracy: whether what a model wrote repeats itself."""

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from probe.cycles import end_cycle

_TOKENS = 48
"""The smallest number of tokens that the repeated cycle covers. A truncated sum of equal terms or line of dashes covers
fewer."""
_WINDOW = 128
"""The number of n-grams at the end of a text among which repetitions are counted. This finds loops between a few
sentences, and loops that count their rounds."""
_REPEATED = 2 / 3
"""The share of repetitions from which a text counts as looping. Greedy loops of SmolLM2-135M and tiny-base have 0.72 or
more; tables, numbered lists, code and sums have 0.5 or less."""
_LONG = 8
"""The number of tokens of such an n-gram. It is a repetition if it occurred at least twice before."""


@dataclass(frozen=True)
class Degeneracy:
    """How repetitive a model's text is."""

    repetition: float | None
    """Share of 4-grams of tokens that occurred before, seq-rep-4 of Welleck et al. (2020, arXiv 1908.04319); None for
    fewer than 4 tokens."""
    compression: float | None
    """Compressed size (zlib) divided by the size of the text in bytes: about 0.4 for a page of prose, near 0 for a
    loop, and above 1 for a few words. None for an empty text."""
    looping: bool
    """Whether the text ends in a loop; see :func:`looping`."""


def degeneracy(tokens: Sequence[int], text: str) -> Degeneracy:
    """Measure how repetitive a model's text is, in time linear in its length.

    Args:
        tokens: the emitted ids, without the end token.
        text: the decoded tokens.

    >>> found = degeneracy([5, 6, 7, 8] * 16 + [5, 6, 7], "Wait, hold on. " * 16 + "Wait, hold")
    >>> found.repetition, round(found.compression, 1), found.looping
    (0.9375, 0.1, True)
    """
    grams = list(zip(*(tokens[at:] for at in range(4)), strict=False))
    data = text.encode(errors="replace")
    return Degeneracy(
        repetition=1 - len(set(grams)) / len(grams) if grams else None,
        compression=len(zlib.compress(data)) / len(data) if data else None,
        looping=looping(tokens),
    )


def looping(tokens: Sequence[int]) -> bool:
    """Whether tokens end in a loop.

    They do if they end in one cycle that occurs at least 4 times in a row and covers at least 48 tokens. They also do
    if at least two thirds of the last 128 8-grams occurred twice before: the model alternates between a few sentences,
    or counts its repetitions. Tables, code and lists of numbers do not count as loops. A text that looped and then
    continued for more than about 40 tokens does not end in a loop, but its ``repetition`` is high.
    """
    return end_cycle(tokens, _TOKENS) is not None or _is_repetitive(tokens)


def _is_repetitive(tokens: Sequence[int]) -> bool:
    grams = list(zip(*(tokens[at:] for at in range(_LONG)), strict=False))
    if len(grams) < _WINDOW:
        return False
    counts = Counter[tuple[int, ...]](grams[:-_WINDOW])
    repeated = 0
    for gram in grams[-_WINDOW:]:
        repeated += counts[gram] >= 2
        counts[gram] += 1
    return repeated >= _REPEATED * _WINDOW


def mean_degeneracy(answers: Iterable[tuple[Sequence[int], str]]) -> dict[str, float | None]:
    """Average the degeneracy of many answers, for a result file.

    Args:
        answers: the emitted ids and the text of each answer; they are read one at a time.

    Returns:
        ``repetition`` and ``compression``: means over the answers that have them. ``looping``: the share of answers
        that end in a loop. Each is None if no answer has a value.
    """
    found = [degeneracy(tokens, text) for tokens, text in answers]
    columns = {
        "repetition": [each.repetition for each in found if each.repetition is not None],
        "compression": [each.compression for each in found if each.compression is not None],
        "looping": [each.looping for each in found],
    }
    return {name: float(np.mean(values)) if values else None for name, values in columns.items()}

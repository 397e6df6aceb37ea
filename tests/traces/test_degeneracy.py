"""What repeats itself is told from what only counts, adds up or lists, in tokens of words, digits and signs."""

import re
import time

import pytest
from hypothesis import given, strategies as some

from probe.traces import Degeneracy, degeneracy, looping, mean_degeneracy

LOOPS = {
    "wait": "The sum is 12. " + "Wait, hold on. " * 40,
    "cut in the cycle": "Let me check that again. " * 30 + "Let me ch",
    "table of equal rows": "| n | n² |\n|---|---|\n" + "| 0 | 0 |\n" * 60,
    "one sign": "So x = 0." + "0" * 200,
    "ends in white space": "Wait, hold on.\n" * 60 + " ",
    "between two sentences": ("It is fun to have stamps. " * 3 + "Lia likes stamps a lot. " * 2) * 8 + "It is fun",
    "counts its rounds": "".join(
        f"{n}. Now, convert the 40 km per hour to km per hour, which is 1. " for n in range(30)
    ),
    "a paragraph": "Therefore the answer is 7, as 3 + 4 = 7, and so we verify it once more: " * 6,
}
NO_LOOPS = {
    "counted": ", ".join(map(str, range(1, 400))),
    "steps": " ".join(f"Step {n}: we add {n} to the sum, which gives {n * n}." for n in range(80)),
    "sum of equal terms": "So " + " + ".join(["3"] * 11) + " = 33.",
    "sum of equal terms, cut": "So " + " + ".join(["3"] * 11),
    "table": "".join(f"| {n} | {n * n} |\n" for n in range(60)),
    "rule": "| a | b |\n|" + "-" * 40,
    "code": "".join(f"    if n % {n} == 0:\n        return False\n" for n in range(2, 40)),
    "looped and answered": "Wait, hold on. "
    * 40
    + "That is enough of it: the first number is 5 and the second is 7, so we add both, and as 5 and 7 are given, "
    "the sum of both is 12. The question asks for the sum, which is the number that we found. The answer is 12.",
    "said three times": "The answer is 12. " * 3,
    "short": "no no no no no no",
    "empty": "",
}


def as_tokens(text: str) -> list[int]:
    """Tokens as those of most models: a word with the space before it, a digit, a sign."""
    names: dict[str, int] = {}
    return [names.setdefault(piece, len(names)) for piece in re.findall(r" ?[^\W\d]+|\d| +|\s|[^\w\s]", text)]


@pytest.mark.parametrize("name", LOOPS)
def test_loops(name: str) -> None:
    assert looping(as_tokens(LOOPS[name]))


@pytest.mark.parametrize("name", NO_LOOPS)
def test_no_loops(name: str) -> None:
    assert not looping(as_tokens(NO_LOOPS[name]))


@given(
    some.lists(some.integers(0, 3), max_size=10),
    some.lists(some.integers(0, 3), min_size=1, max_size=20),
    some.integers(0, 60),
    some.integers(0, 90),
)
def test_looping_is_its_definition(before: list[int], cycle: list[int], times: int, cut: int) -> None:
    tokens = (before + cycle * times)[: max(0, 90 - cut)]
    n = len(tokens)
    periods = {
        p
        for p in range(1, n // 4 + 1)
        if tokens[max(n - max(4 * p, 48), 0) + p :] == tokens[max(n - max(4 * p, 48), 0) : n - p]
    }
    assert looping(tokens) == (n >= 48 and bool(periods))


def test_repetition_counts_four_grams_of_tokens() -> None:
    found = degeneracy([1, 2, 3, 4, 1, 2, 3, 4, 9], "é")  # 6 four-grams, one of them twice
    assert found.repetition == pytest.approx(1 / 6)
    assert found.compression is not None and found.compression > 1
    assert degeneracy([1, 2, 3], "") == Degeneracy(None, None, False)


def test_time_is_linear() -> None:
    tokens = [0] * 99 + [1] + [0] * 99_900  # a quadratic search takes minutes
    began = time.process_time()
    assert degeneracy(tokens, "\ud800 a" * 33_000).looping
    assert time.process_time() - began < 5


def test_means_leave_out_what_has_no_value() -> None:
    loop, none = ([1, 2] * 30, "ab" * 30), ([], "")
    found = mean_degeneracy(answer for answer in (loop, none))
    assert found == {"repetition": 1 - 2 / 57, "compression": degeneracy(*loop).compression, "looping": 0.5}
    assert mean_degeneracy([]) == {"repetition": None, "compression": None, "looping": None}

"""Answers that say the same are one, and the shift of answers is zero where nothing changes."""

import numpy as np
import pytest

from probe.anchors import accuracy_difference, answer_clusters, answer_shift, say_the_same
from probe.anchors.answers import q_values
from probe.problems import Problem, ProblemSet


def test_answers_are_clustered_by_the_grader():
    problem = Problem("p", "?", None)
    numbers = ProblemSet("numbers", "numeric", {"test": ()})
    found = answer_clusters(numbers, problem, ["0.5", "1/2", "0.5", "2", None])
    assert found["1/2"] == found["0.5"] == "0.5" and found["2"] == "2" and found[None] is None
    known = answer_clusters(numbers, Problem("p", "?", "1/2"), ["0.5", "0.5"])
    assert known["0.5"] == "1/2", "the known answer names its cluster"
    words = ProblemSet("words", "exact", {"test": ()})
    assert len(set(answer_clusters(words, problem, ["red", "blue", " red "]).values())) == 3
    own = ProblemSet("own", "own", {"test": ()}, verifier=lambda answer, _: answer == "1")
    found = answer_clusters(own, problem, ["1", "2", "2 ", "3"])
    assert found["2 "] == found["2"] and len(set(found.values())) == 4


def test_where_nothing_changes_the_shift_is_zero_on_average_and_p_is_uniform():
    rng = np.random.default_rng(0)
    shifts = [
        answer_shift(*(rng.choice(list("abcd"), 20, p=[0.4, 0.3, 0.2, 0.1]).tolist() for _ in range(2)), seed=i)
        for i in range(200)
    ]
    values = np.array([each.divergence.value for each in shifts])
    assert abs(values.mean()) < 3 * values.std() / len(values) ** 0.5 + 0.005
    assert 0.01 <= np.mean([each.p < 0.05 for each in shifts]) <= 0.09
    held = np.mean([each.divergence.low <= 0 <= each.divergence.high for each in shifts])
    assert held >= 0.85


def test_the_interval_holds_the_true_divergence():
    rng, p, q = np.random.default_rng(1), np.array([0.7, 0.3]), np.array([0.3, 0.7])
    true, held = float((p * np.log(p / q)).sum()), []
    for i in range(60):
        found = answer_shift(
            rng.choice(["a", "b"], 100, p=p).tolist(), rng.choice(["a", "b"], 100, p=q).tolist(), seed=i
        )
        held.append(found.divergence.low <= true <= found.divergence.high)
        assert found.p < 0.05
    assert np.mean(held) >= 0.85


def test_the_difference_of_accuracies_has_newcombes_interval():
    found = accuracy_difference([True] * 56 + [False] * 14, [True] * 48 + [False] * 32 + [None])
    assert (found.value, *found.ci) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4), "Newcombe 1998, example (a)"
    assert accuracy_difference([None], [True]).value is None


def test_false_discovery_rates():
    found = q_values({0: 0.01, 1: None, 2: 0.04, 3: 0.03})
    assert found == pytest.approx({0: 0.03, 2: 0.04, 3: 0.04})
    assert q_values({0: None}) == {}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("So 22 + 9 = 31.", " Thus 22 + 9 = 31.", False),
        ("Now we get 22 + 9 = 31 coins.", "Now we get that 22 + 9 = 31 coins.", True),
        ("22 + 9 = 31.", "22 + 9 = 32.", False),
        ("22 + 9 = 31.", "22+9=31", True),
        ("Wait, let me check that again.", "Wait, let me check that.", True),
        ("Let me check that.", "The weather is nice.", False),
    ],
)
def test_sentences_say_the_same(one, other, same):
    assert say_the_same(one, other) == say_the_same(other, one) == same

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score, f1_score, silhouette_score

from probe.taxonomy import TaxonomyConfig
from probe.taxonomy.search.scores import AssignmentScores, agreement, mean, stability
from probe.taxonomy.search.search import Split, Survey


@pytest.fixture(scope="module")
def split(planted) -> Split:
    return Survey.of(planted(900, 0), planted(400, 1), "resid_post.1", TaxonomyConfig()).read()


@pytest.fixture(scope="module")
def yardstick(split: Split) -> AssignmentScores:
    texts = (split.texts, split.texts_validation)
    return AssignmentScores(split.x, split.x_validation, *texts, sentence_type=lambda text: text.split()[0])


def kinds(texts: list[str]) -> np.ndarray:
    names = sorted({text.split()[0] for text in texts})
    return np.array([names.index(text.split()[0]) for text in texts])


def test_stability_matches_rows_one_to_one() -> None:
    rows = torch.eye(4)
    assert stability([rows, rows[[2, 0, 3, 1]]]) == pytest.approx(1)
    assert stability([rows, rows[[0, 0, 0, 0]]]) == pytest.approx(0.25)
    assert stability([rows]) is None


def test_agreement_is_of_assignments_not_of_their_numbers() -> None:
    a = np.array([0, 0, 1, 1, 2, 2] * 20)
    assert agreement([a, 2 - a]) == pytest.approx(1)
    assert agreement([a, a, np.roll(a, 1)]) == pytest.approx(
        np.mean([1.0, *[adjusted_mutual_info_score(a, np.roll(a, 1))] * 2])
    )
    assert agreement([a]) is None


def test_scores_against_scikit_learn(split: Split, yardstick: AssignmentScores) -> None:
    truth, held_out = kinds(split.texts), kinds(split.texts_validation)
    spoilt = np.where(np.arange(len(held_out)) % 4 == 0, 0, held_out)
    expected = silhouette_score(split.x_validation.numpy(), spoilt, metric="cosine")
    assert yardstick.silhouette(spoilt) == pytest.approx(expected, abs=1e-5)
    for metric in (yardstick.decodability, yardstick.centroid_f1, yardstick.text_f1):
        told = metric(truth, held_out, 6)
        assert min(told) > 0.98
        # What the probe says is the truth, so its F1 on spoilt assignments is that of the truth.
        assert metric(truth, spoilt, 6) == pytest.approx(f1_score(spoilt, held_out, average=None).tolist(), abs=0.02)


def test_words_tell_nothing_where_they_are_the_same_everywhere(split: Split) -> None:
    same = AssignmentScores(split.x, split.x_validation, ["alike"] * len(split.x), ["alike"] * len(split.x_validation))
    told = same.text_f1(kinds(split.texts), kinds(split.texts_validation), 6)
    assert mean(told) < 0.1
    assert min(same.decodability(kinds(split.texts), kinds(split.texts_validation), 6)) > 0.98


def test_true_types(yardstick: AssignmentScores, split: Split) -> None:
    held_out = kinds(split.texts_validation)
    assert yardstick.ami(held_out) == pytest.approx(1)
    assert yardstick.type_f1(held_out) == dict.fromkeys(("Alpha", "Beta", "Delta", "Epsilon", "Gamma", "Zeta"), 1.0)
    merged = np.where(held_out == 1, 0, held_out)  # Alpha and Beta are one behaviour, named for the more frequent
    f1 = yardstick.type_f1(merged)
    lost = min(("Alpha", "Beta"), key=lambda name: f1[name])
    assert f1[lost] == 0.0
    assert f1["Zeta"] == 1.0


def test_behaviours_that_are_not_there(yardstick: AssignmentScores, split: Split) -> None:
    one = np.zeros(len(split.x_validation), dtype=int)
    assert yardstick.silhouette(one) is None
    told = yardstick.centroid_f1(np.zeros(len(split.x), dtype=int), one, 3)
    assert told == [1.0, None, None]
    assert mean(told) == 1.0
    assert mean([None]) is None

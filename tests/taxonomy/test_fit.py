from dataclasses import replace
from pathlib import Path

import pytest
import torch

from probe._errors import ProbeError
from probe.activations import SentenceActivations
from probe.taxonomy import Taxonomy, TaxonomyConfig, fit_taxonomy
from probe.taxonomy.fit import choose, stability

QUICK = TaxonomyConfig(sizes=(4, 6, 8), steps=150, batch_size=256)


def first_word(text: str) -> str:
    return text.split()[0]


@pytest.fixture(scope="module")
def fitted(planted) -> Taxonomy:
    return fit_taxonomy(planted(1500, 0), planted(500, 1), QUICK, sentence_type=first_word)


def test_planted_behaviours_are_found(fitted: Taxonomy) -> None:
    assert fitted.n_behaviours == 6
    assert fitted.scores["ami"] > 0.98
    assert fitted.scores["stability"] > 0.95
    assert fitted.scores["variance_explained"] > 0.8
    assert fitted.scores["silhouette"] > 0.5
    assert sum(fitted.scores["shares"]) == pytest.approx(1)


def test_labels_and_examples_tell_them_apart(fitted: Taxonomy) -> None:
    assert {label.split()[0] for label in fitted.labels} == {"“Alpha", "“Beta", "“Gamma", "“Delta", "“Epsilon", "“Zeta"}
    for label, examples in zip(fitted.labels, fitted.examples, strict=True):
        assert len(examples) == 1, "sentences that differ in nothing but numbers are shown once"
        assert label.startswith("“" + examples[0].split()[0])


def test_true_types_have_no_part_in_the_choice(fitted: Taxonomy, planted) -> None:
    blind = fit_taxonomy(planted(1500, 0), planted(500, 1), QUICK)
    assert blind.scores.pop("ami") is None
    assert blind.scores == {name: score for name, score in fitted.scores.items() if name != "ami"}
    assert torch.equal(blind.directions, fitted.directions)
    misled = fit_taxonomy(planted(1500, 0), planted(500, 1), QUICK, sentence_type=lambda text: text[-3:])
    assert torch.equal(misled.directions, fitted.directions)


def test_only_typed_sentences_count_for_ami(planted) -> None:
    config = replace(QUICK, sizes=(6,), seeds=(0,))
    but_one = lambda text: None if "Zeta" in text else first_word(text)  # noqa: E731
    some = fit_taxonomy(planted(600, 0), planted(300, 1), config, sentence_type=but_one)
    assert some.scores["ami"] > 0.98
    none = fit_taxonomy(planted(600, 0), planted(300, 1), config, sentence_type=lambda _: None)
    assert none.scores["ami"] is None
    assert none.scores["stability"] is None


def test_it_touches_no_global_randomness(planted) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    fit_taxonomy(planted(300, 0), planted(100, 1), replace(QUICK, sizes=(6,), steps=5))
    assert torch.equal(before, torch.get_rng_state())


def test_outliers_take_no_part(fitted: Taxonomy, planted) -> None:
    hurt = fit_taxonomy(planted(1500, 0, outliers=9), planted(500, 1), QUICK, sentence_type=first_word)
    assert hurt.scores["outliers"] == 9
    assert hurt.scores["train_sentences"] == 1491
    assert hurt.scores["ami"] > 0.98
    assert stability([hurt.directions, fitted.directions]) == pytest.approx(1, abs=0.02)


def test_quiet(planted, capfd: pytest.CaptureFixture[str]) -> None:
    fit_taxonomy(planted(300, 0), planted(100, 1), replace(QUICK, sizes=(6,), seeds=(0,), steps=5))
    assert capfd.readouterr() == ("", "")


def candidate(size: int, variance: float, stable: float | None) -> dict:
    return {"size": size, "variance_explained": variance, "stability": stable}


@pytest.mark.parametrize(
    ("candidates", "size"),
    [
        ([candidate(4, 0.5, 1.0), candidate(8, 0.9, 0.9), candidate(12, 1.0, 0.9)], 8),
        ([candidate(4, 0.5, 1.0), candidate(8, 0.9, 0.5), candidate(12, 1.0, 0.8)], 12),
        ([candidate(4, 0.5, 1.0), candidate(8, 0.9, 0.3), candidate(12, 1.0, 0.2)], 8),
        ([candidate(12, 1.0, None), candidate(4, 0.9, None)], 4),
    ],
)
def test_the_rule(candidates: list[dict], size: int) -> None:
    assert choose(candidates, TaxonomyConfig())["size"] == size


def test_stability_matches_rows_one_to_one() -> None:
    rows = torch.eye(4)
    assert stability([rows, rows[[2, 0, 3, 1]]]) == pytest.approx(1)
    assert stability([rows, rows[[0, 0, 0, 0]]]) == pytest.approx(0.25)
    assert stability([rows]) is None


def test_refusals(planted, tmp_path: Path) -> None:
    data = planted(40, 0)
    with pytest.raises(ProbeError, match=r"resid_post\.9 was not harvested for training; harvested: resid_post\.1"):
        fit_taxonomy(data, data, TaxonomyConfig(site="resid_post.9"))
    with pytest.raises(ProbeError, match="8 training sentences are too few for a taxonomy of 12"):
        fit_taxonomy(planted(8, 0), data)
    with pytest.raises(ProbeError, match="0 validation sentences are too few"):
        fit_taxonomy(data, planted(0, 0))
    x = data.vectors["resid_post.1"]
    two = SentenceActivations({"resid_post.1": x, "resid_post.2": x}, data.index, data.texts)
    with pytest.raises(ProbeError, match=r"Set site to one of resid_post\.1, resid_post\.2"):
        fit_taxonomy(two, two)
    with pytest.raises(ProbeError, match="choose k from 1 to 4"):
        TaxonomyConfig(k=5)
    with pytest.raises(ProbeError, match="at least one size"):
        TaxonomyConfig(sizes=())
    with pytest.raises(ProbeError, match=r"taxonomy\.json does not exist"):
        Taxonomy.load(tmp_path)

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from probe.activations import SentenceActivations
from probe.errors import ProbeError
from probe.taxonomy import Candidate, Grid, Taxonomy, TaxonomyConfig, explore, fit_taxonomy, from_grid
from probe.taxonomy.search.search import Survey

QUICK = TaxonomyConfig(sizes=(4, 6, 8), steps=150, batch_size=256)


def first_word(text: str) -> str:
    return text.split()[0]


@pytest.fixture(scope="module")
def fitted(planted) -> Taxonomy:
    return fit_taxonomy(planted(1500, 0), planted(500, 1), QUICK, sentence_type=first_word)


def test_planted_behaviours_are_found(fitted: Taxonomy) -> None:
    assert fitted.n_behaviours == 6
    assert fitted.scores["ami"] > 0.98
    assert min(fitted.scores["ami_by_seed"]) > 0.98
    assert fitted.scores["stability"] > 0.95
    assert fitted.scores["agreement"] > 0.98
    assert fitted.scores["variance_explained"] > 0.8
    assert fitted.scores["silhouette"] > 0.5
    for name in ("decodability", "centroid_f1", "text_f1"):
        assert min(fitted.scores[name]) > 0.98
    assert min(fitted.scores["type_f1"].values()) > 0.98
    assert set(fitted.scores["type_f1"]) == {"Alpha", "Beta", "Gamma", "Delta", "Epsilon", "Zeta"}
    assert sum(fitted.scores["shares"]) == pytest.approx(1)


def test_labels_and_examples_tell_them_apart(fitted: Taxonomy) -> None:
    assert {label.split()[0] for label in fitted.labels} == {"“Alpha", "“Beta", "“Gamma", "“Delta", "“Epsilon", "“Zeta"}
    for label, examples in zip(fitted.labels, fitted.examples, strict=True):
        assert len(examples) == 1, "sentences that differ in nothing but numbers are shown once"
        assert label.startswith("“" + examples[0].split()[0])


def test_true_types_have_no_part_in_the_choice(fitted: Taxonomy, planted) -> None:
    blind = fit_taxonomy(planted(1500, 0), planted(500, 1), QUICK)
    assert blind.scores.pop("ami") is None
    told = ("ami", "ami_by_seed", "type_f1", "candidates")
    assert {n: s for n, s in blind.scores.items() if n not in told} == {
        n: s for n, s in fitted.scores.items() if n not in told
    }
    assert torch.equal(blind.directions, fitted.directions)
    misled = fit_taxonomy(planted(1500, 0), planted(500, 1), QUICK, sentence_type=lambda text: text[-3:])
    assert torch.equal(misled.directions, fitted.directions)


def test_only_typed_sentences_count_for_ami(planted) -> None:
    config = replace(QUICK, sizes=(6,), seeds=(0,))
    but_one = lambda text: None if "Zeta" in text else first_word(text)  # noqa: E731
    some = fit_taxonomy(planted(600, 0), planted(300, 1), config, sentence_type=but_one)
    assert some.scores["ami"] > 0.98
    assert "Zeta" not in some.scores["type_f1"]
    none = fit_taxonomy(planted(600, 0), planted(300, 1), config, sentence_type=lambda _: None)
    assert none.scores["ami"] is None
    assert none.scores["type_f1"] is None
    assert none.scores["stability"] is None


def test_it_touches_no_global_randomness(planted) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    fit_taxonomy(planted(300, 0), planted(100, 1), replace(QUICK, sizes=(6,), steps=5))
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


def test_outliers_take_no_part(planted) -> None:
    hurt = fit_taxonomy(planted(1500, 0, outliers=9), planted(500, 1), QUICK, sentence_type=first_word)
    assert hurt.scores["outliers"] == 9
    assert hurt.scores["train_sentences"] == 1491
    assert hurt.scores["ami"] > 0.98


def test_quiet(planted, capfd: pytest.CaptureFixture[str]) -> None:
    fit_taxonomy(planted(300, 0), planted(100, 1), replace(QUICK, sizes=(6,), seeds=(0,), steps=5))
    assert capfd.readouterr() == ("", "")


def candidate(site: str, size: int, score: float, stable: float | None = 0.9, family: str = "topk") -> Candidate:
    """Whose five scores are all ``score`` but for stability, which is part of the mean."""
    each = score if stable is None else (5 * score - stable) / 4
    return Candidate(
        site=site,
        family=family,
        size=size,
        seeds=(0,),
        variance_explained=(each,),
        stability=stable,
        agreement=None if stable is None else each,
        silhouette=each,
        decodability=0.0,
        centroid_f1=each,
        text_f1=0.0,
        ami=(0.0,),
        used=(size,),
    )


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([candidate("a", 4, 0.80), candidate("a", 8, 0.90), candidate("a", 12, 0.85)], ("a", 8)),
        # Within 0.02 of the best, the fewest behaviours; of those, the best.
        (
            [candidate("a", 8, 0.90), candidate("b", 4, 0.885), candidate("c", 4, 0.89), candidate("a", 2, 0.7)],
            ("c", 4),
        ),
        # The unstable take no part, unless all are.
        ([candidate("a", 4, 0.95, 0.5), candidate("a", 8, 0.80)], ("a", 8)),
        ([candidate("a", 4, 0.80, 0.5), candidate("a", 8, 0.85, 0.4)], ("a", 8)),
        # A single seed has no stability.
        ([candidate("a", 4, 0.80, None), candidate("a", 8, 0.85, None)], ("a", 8)),
        # A rival is compared with, never chosen.
        ([candidate("a", 4, 0.80), candidate("a", 4, 0.99, family="agglomerative")], ("a", 4)),
    ],
)
def test_the_rule(candidates: list[Candidate], chosen: tuple[str, int]) -> None:
    found = Grid(tuple(candidates), {}, TaxonomyConfig()).choose()
    assert (found.site, found.size, found.family) == (*chosen, "topk")


@pytest.fixture(scope="module")
def two_sites(planted) -> tuple[SentenceActivations, SentenceActivations]:
    def spoilt(data: SentenceActivations) -> SentenceActivations:
        x = data.vectors["resid_post.1"]
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(len(x)))
        return SentenceActivations({"resid_post.0": noise, "resid_post.1": x}, data.index, data.texts, "tiny")

    return spoilt(planted(800, 0)), spoilt(planted(300, 1))


def test_the_best_site_is_chosen_and_rivals_are_beside_it(two_sites) -> None:
    config = replace(QUICK, sizes=(4, 6), rivals=("spherical-kmeans", "agglomerative"))
    grid = explore(*two_sites, config, sentence_type=first_word)
    assert {(each.site, each.family, each.size) for each in grid.candidates} == {
        (site, family, size)
        for site in ("resid_post.0", "resid_post.1")
        for family in ("topk", "spherical-kmeans", "agglomerative")
        for size in (4, 6)
    }
    taxonomy = from_grid(grid, *two_sites, sentence_type=first_word)
    assert (taxonomy.site, taxonomy.n_behaviours) == ("resid_post.1", 6)
    rows = {(row["site"], row["family"], row["size"]): row for row in grid.to_dicts()}
    assert [at for at, row in rows.items() if row["chosen"]] == [("resid_post.1", "topk", 6)]
    assert rows["resid_post.1", "spherical-kmeans", 6]["ami"] > 0.98
    assert rows["resid_post.0", "spherical-kmeans", 6]["ami"] < 0.1
    assert rows["resid_post.1", "agglomerative", 6]["variance_explained"] == pytest.approx(
        rows["resid_post.1", "topk", 6]["variance_explained"], abs=0.02
    ), "the mean of a behaviour stands for its sentences"
    (row,) = [each for each in grid._repr_html_().split("<tr>") if each.startswith("<td>✓</td>")]
    assert row.startswith("<td>✓</td><td>resid_post.1</td><td>topk</td><td>6</td>")
    by_hand = from_grid(grid, *two_sites, site="resid_post.0", size=4)
    assert (by_hand.site, by_hand.n_behaviours, by_hand.scores["rule"]) == ("resid_post.0", 4, "chosen by hand")
    with pytest.raises(ProbeError, match=r"no candidate has 5 behaviours at any site; there are 4 at resid_post\.0"):
        from_grid(grid, *two_sites, size=5)


def test_spherical_kmeans_is_a_top_1_sae(planted) -> None:
    from probe.taxonomy.families import SphericalKMeans

    train, validation = planted(800, 0), planted(300, 1)
    config = replace(QUICK, sizes=(6,), seeds=(0,), family="spherical-kmeans")
    taxonomy = fit_taxonomy(train, validation, config)
    split = Survey.of(train, validation, "resid_post.1", TaxonomyConfig()).read()
    peer = SphericalKMeans(6, random_state=0).fit(split.x)
    raw = validation.vectors["resid_post.1"]
    assert taxonomy.behaviour(raw).tolist() == peer.predict(split.x_validation).tolist()
    assert taxonomy.k_active == 1
    assert torch.equal(taxonomy.sae.encode(raw).argmax(-1), taxonomy.behaviour(raw))


def test_a_search_goes_on_where_it_was_stopped(two_sites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import probe.taxonomy.search.search as module

    config = replace(QUICK, sizes=(4, 6), steps=40)
    whole = explore(*two_sites, config)
    real, calls = module.train_saes, []

    def dies(*given, **named):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(module, "train_saes", dies)
    with pytest.raises(KeyboardInterrupt):
        explore(*two_sites, config, folder=tmp_path)
    again = explore(*two_sites, config, folder=tmp_path)
    assert len(calls) == 3, "the finished site is not done again"
    assert again.candidates == whole.candidates
    with pytest.raises(ProbeError, match="holds a search with other settings or sentences"):
        explore(*two_sites, replace(config, steps=41), folder=tmp_path)
    for at, weights in whole.weights.items():
        assert torch.equal(again.weights[at].encoder, weights.encoder)
        assert torch.equal(again.weights[at].decoder, weights.decoder)


def test_sizes_that_fit_the_data(planted) -> None:
    grid = explore(planted(90, 0), planted(60, 1), TaxonomyConfig(seeds=(0,), steps=5))
    assert [each.size for each in grid.candidates] == [2, 4, 6, 8], "ten sentences a behaviour"


def test_refusals(planted, tmp_path: Path) -> None:
    data = planted(40, 0)
    with pytest.raises(ProbeError, match=r"resid_post\.9 was not harvested for training; harvested: resid_post\.1"):
        fit_taxonomy(data, data, TaxonomyConfig(sites=("resid_post.9",)))
    with pytest.raises(ProbeError, match=r"8 training sentences are too few for a taxonomy of 12 .* at least 12"):
        fit_taxonomy(planted(8, 0), data, replace(QUICK, sizes=(12,)))
    with pytest.raises(ProbeError, match=r"8 training sentences are too few .* at least 20 are needed"):
        fit_taxonomy(planted(8, 0), data)
    with pytest.raises(ProbeError, match="0 validation sentences are too few"):
        fit_taxonomy(data, planted(0, 0))
    with pytest.raises(ProbeError, match="0 training sentences are too few"):
        fit_taxonomy(planted(0, 0), data)
    with pytest.raises(ProbeError, match="has 1; a taxonomy needs at least 2"):
        TaxonomyConfig(sizes=(1, 4))
    with pytest.raises(ProbeError, match="unknown family 'kmeans'"):
        TaxonomyConfig(rivals=("kmeans",))
    with pytest.raises(ProbeError, match=r"harvest probe\.taxonomy\.delimiter_documents"):
        fit_taxonomy(data, data, replace(QUICK, rivals=("delimiter",)))
    with pytest.raises(ProbeError, match=r"taxonomy\.json does not exist"):
        Taxonomy.load(tmp_path)


def test_activations_that_are_no_numbers_are_refused_before_training(planted) -> None:
    data = planted(200, 0)
    data.vectors["resid_post.1"][7, 3] = float("nan")
    data.vectors["resid_post.1"][9, 0] = float("inf")
    with pytest.raises(ProbeError, match=r"2 of 200 training sentences have NaN .* \(first: trace 7, sentence 0\)"):
        fit_taxonomy(data, planted(100, 1), QUICK)

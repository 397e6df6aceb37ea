"""A taxonomy is found, and used, without holding what grows with the number of sentences."""

import tracemalloc
from dataclasses import replace

import pytest
import torch

from benchmarks.peak import Peak
from probe.activations import Rows, SentenceActivations, rows as chunks
from probe.activations.sentences import StoredVectors
from probe.errors import ProbeError
from probe.taxonomy import Normaliser, Taxonomy, TaxonomyConfig, annotate, behaviour_map, fit_taxonomy, neuronpedia
from probe.taxonomy.falsify import content
from probe.taxonomy.falsify.content import Content
from probe.taxonomy.search.search import Survey
from probe.traces import Sentence, Trace, Traces

SITE = "resid_post.1"
QUICK = TaxonomyConfig(sizes=(4, 6), seeds=(0, 1), steps=40, batch_size=64)


def on_disk(acts: SentenceActivations, parts: int = 5) -> SentenceActivations:
    """The same sentences as if they had been harvested in shards."""
    rows = {site: Rows(acts.vectors[site].tensor_split(parts)) for site in acts.sites}
    return SentenceActivations(StoredVectors(rows), acts.index, acts.texts, acts.model_name)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 64 rows of the planted sentences."""
    monkeypatch.setattr(chunks, "_CHUNK", 64 * 32 * 4)


@pytest.fixture
def never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """No site may be read at once."""

    def refuse(*_: object) -> None:
        raise AssertionError("a whole site was read")

    monkeypatch.setattr(Rows, "tensor", refuse)


@pytest.mark.usefixtures("never_whole")
def test_chunks_change_nothing_that_is_found(planted, request: pytest.FixtureRequest) -> None:
    train, validation = planted(700, 0, outliers=3), planted(300, 1)
    one_seed = replace(QUICK, seeds=(0,))  # two seeds find the same here, and rounding decides which one is taken
    whole = fit_taxonomy(train, validation, one_seed)
    request.getfixturevalue("small_chunks")
    parted = fit_taxonomy(on_disk(train), on_disk(validation), one_seed)
    torch.testing.assert_close(parted.directions, whole.directions, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parted.normaliser.mean, whole.normaliser.mean)
    assert parted.normaliser.limit == pytest.approx(whole.normaliser.limit) and parted.scores["outliers"] == 3
    assert parted.labels == whole.labels and parted.examples == whole.examples
    for name in ("score", "silhouette", "decodability", "centroid_f1", "text_f1", "shares"):
        assert parted.scores[name] == pytest.approx(whole.scores[name], abs=1e-4), name


@pytest.mark.usefixtures("never_whole", "small_chunks")
def test_rows_of_a_store_are_classified_as_the_tensor_is(planted) -> None:
    acts = planted(300, 2, outliers=2)
    x = acts.vectors[SITE]
    stored = on_disk(acts)
    taxonomy = fit_taxonomy(planted(400, 0), planted(200, 1), replace(QUICK, sizes=(4,)))
    rows = stored.rows(SITE)
    outliers = x.norm(dim=1) > taxonomy.normaliser.limit
    scores = torch.nn.functional.normalize(x - taxonomy.normaliser.mean, dim=1) @ taxonomy._weights.encoder
    torch.testing.assert_close(taxonomy.pre_activations(rows), scores, rtol=1e-4, atol=1e-5)
    assert torch.equal(taxonomy.behaviour(rows), scores.argmax(1))
    fires = torch.nn.functional.one_hot(scores.argmax(1), 4).bool() & ~outliers[:, None]
    assert torch.equal(taxonomy.fires(rows), fires) and int(outliers.sum()) == 2
    z = torch.nn.functional.normalize(x[~outliers] - taxonomy.normaliser.mean, dim=1)
    assert taxonomy.variance_explained(rows) == pytest.approx(taxonomy._weights.explained(z), abs=1e-5)

    places = behaviour_map(rows, scores.argmax(1).tolist(), normaliser=taxonomy.normaliser, sample=40)
    known = behaviour_map(taxonomy.normaliser(x), scores.argmax(1).tolist(), sample=40)
    assert (places.points == known.points).all() and (places.rows == known.rows).all()

    found = annotate(taxonomy, as_traces(stored), stored).behaviours
    assert [row[0] for row in found] == [
        None if out else at for at, out in zip(scores.argmax(1).tolist(), outliers, strict=True)
    ]
    assert stored.first(7).index == acts.first(7).index == acts.index[:7]
    assert torch.equal(stored.first(7).rows(SITE)[:], x[:7]) and len(stored.first(0)) == 0
    median = f"{x.norm(dim=1).median().item():.3g}"
    assert median in stored._repr_html_() and median in acts._repr_html_()


def as_traces(acts: SentenceActivations) -> Traces:
    """A trace of one sentence for each row."""
    some = []
    for i, text in enumerate(acts.texts):
        span = Sentence(0, len(text), 0, 1)
        some.append(Trace(f"{i}", "?", (1,), text, (span,), None, None, False, False))
    return Traces("tiny", "none", some)


@pytest.mark.usefixtures("small_chunks")
def test_content_is_that_of_all_sentences_at_once(planted, monkeypatch: pytest.MonkeyPatch) -> None:
    acts = planted(330, 3)
    x, question = acts.vectors[SITE], [(i * 7) % 11 for i in range(330)]
    means = torch.stack([x[torch.tensor(question) == q].mean(0) for q in range(11)])
    basis = torch.linalg.svd(means - means.mean(0), full_matrices=False).Vh[:3]
    expected = x - (x - x.mean(0)) @ basis.T @ basis
    torch.testing.assert_close(Content.of(on_disk(acts).rows(SITE), question, 3)(x), expected, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(content, "_QUESTIONS", 5)
    few = Content.of(on_disk(acts).rows(SITE), question, 4).directions
    residual = means - means.mean(0)
    share = (residual @ few.T).square().sum(1) / residual.square().sum(1)
    assert few.shape == (4, 32) and int((share > 0.9).sum()) <= 5 < int((share < 0.9).sum())


@pytest.mark.usefixtures("small_chunks", "never_whole")
def test_the_top_sentences_are_those_of_all_chunks(planted) -> None:
    acts = planted(300, 4)
    taxonomy = fit_taxonomy(planted(400, 0), planted(200, 1), replace(QUICK, sizes=(4,)))
    latents = taxonomy.sae.encode(acts.vectors[SITE])
    latents[100:150] = latents[:50]  # equal latents in two chunks: the earlier comes first
    acts.vectors[SITE][100:150] = acts.vectors[SITE][:50]
    top, active = neuronpedia._top(taxonomy, on_disk(acts).rows(SITE), 9)
    for i in range(4):
        order = latents[:, i].sort(descending=True, stable=True)
        assert top[i] == order.indices[: min(9, int((latents[:, i] > 0).sum()))].tolist()
        assert active[i] == pytest.approx((latents[:, i] > 0).float().mean().item())


def test_of_more_sentences_random_ones_are_read(planted) -> None:
    train, validation = planted(900, 0, outliers=4), planted(500, 1)
    train.vectors["resid_post.2"] = train.vectors[SITE] * 2 + 1
    validation.vectors["resid_post.2"] = validation.vectors[SITE] * 2 + 1
    config = replace(QUICK, most_sentences=200)
    one, two = (Survey.of(train, validation, site, config) for site in (SITE, "resid_post.2"))
    assert torch.equal(one.chosen[1], two.chosen[1]) and len(one.chosen[1]) == 200
    assert not torch.equal(one.chosen[1], torch.arange(200)), "the first sentences are those of the first problems"
    split = one.read()
    kept = train.vectors[SITE][4:]
    torch.testing.assert_close(split.normaliser.mean, kept.mean(0), rtol=1e-5, atol=1e-5)
    assert split.outliers == 4, "the mean and the outliers are those of all sentences"
    assert split.texts == [train.texts[row] for row in one.chosen[0].tolist()]
    expected = torch.nn.functional.normalize(train.vectors[SITE][one.chosen[0]] - split.normaliser.mean, dim=1)
    torch.testing.assert_close(split.x, expected)

    all_of_them = Survey.of(train, validation, SITE, QUICK)
    assert all_of_them.chosen[0].tolist() == list(range(4, 900))
    assert Normaliser.fit(train.vectors[SITE], 10.0).limit == all_of_them.normaliser.limit


def test_a_search_is_known_by_the_sentences_it_read(planted, tmp_path) -> None:
    train, validation = planted(300, 0), planted(200, 1)
    fit_taxonomy(train, validation, replace(QUICK, sizes=(4,), steps=5), folder=tmp_path)
    before = (tmp_path / "grid" / f"{SITE}.json").read_bytes()
    more = replace(QUICK, sizes=(4,), steps=5, most_sentences=300)
    fit_taxonomy(train, validation, more, folder=tmp_path)
    assert (tmp_path / "grid" / f"{SITE}.json").read_bytes() == before
    with pytest.raises(ProbeError, match="other settings or sentences"):
        fit_taxonomy(train, validation, replace(more, most_sentences=250), folder=tmp_path)


def peak(n: int) -> int:
    """The most bytes that a search over two sites of ``n`` sentences holds beside the stored vectors."""
    generator = torch.Generator().manual_seed(0)

    def sentences() -> SentenceActivations:
        parts = {
            site: Rows(torch.randn(n, 512, generator=generator).bfloat16().split(500))
            for site in (SITE, "resid_post.2")
        }
        texts = [f" Step {i % 7} of {i % 50}." for i in range(n)]
        return SentenceActivations(StoredVectors(parts), [(i, 0) for i in range(n)], texts, "tiny")

    train, validation = sentences(), sentences()
    config = TaxonomyConfig(
        sizes=(4,),
        seeds=(0, 1),
        steps=10,
        batch_size=64,
        most_sentences=500,
        rivals=("spherical-kmeans", "gaussian-mixture"),
    )
    tracemalloc.start()
    with Peak() as held:
        taxonomy: Taxonomy = fit_taxonomy(train, validation, config)
        taxonomy.fires(train.rows(taxonomy.site))
    outside = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    stored = 4 * n * 512 * 2  # two splits and two sites in bfloat16, which count where a view of them is taken
    return held.peak - stored + outside


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_CHUNK", 2**20)
    peak(1000)  # what libraries keep once
    assert peak(20_000) < 1.1 * peak(2_000)

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st

from probe.activations import ActivationStore, Document, documents_of, harvest
from probe.activations.documents import runs
from probe.activations.passes import means
from probe.hooks import capture, edit
from probe.models import Model
from probe.traces import Traces

SITE, OTHER = "resid_post.1", "mlp_out.2"
MakeTraces = Callable[[Model, int], Traces]


@st.composite
def pooled(draw: st.DrawFn):
    """States of a batch, which tokens are outliers, and any spans of them."""
    batch, pos = draw(st.integers(1, 3)), draw(st.integers(1, 8))
    outlying = draw(st.lists(st.booleans(), min_size=batch * pos, max_size=batch * pos))
    spans = draw(
        st.lists(
            st.tuples(st.integers(0, batch * pos - 1), st.integers(1, pos)).map(
                lambda span: (span[0], min(span[0] + span[1], batch * pos))
            ),
            min_size=1,
            max_size=6,
        )
    )
    states = torch.randn(batch, pos, 2, 3, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return states, torch.tensor(outlying).reshape(batch, pos), spans


@given(pooled())
def test_means_of_any_spans(drawn) -> None:
    states, outlying, spans = drawn
    starts, ends = (torch.tensor(edge) for edge in zip(*spans, strict=True))
    got, alone = means(states, outlying, runs(starts, ends - starts), ends - starts)
    flat, flags = states.reshape(-1, 6), outlying.flatten().tolist()
    for row, (start, end) in enumerate(spans):
        own = [at for at in range(start, end) if not flags[at]]
        assert bool(alone[row]) == (not own)
        torch.testing.assert_close(
            got[row], sum(flat[at] for at in own or range(start, end)) / len(own or range(start, end))
        )


def test_an_outlier_that_is_not_finite_does_not_spoil_the_mean() -> None:
    states = torch.tensor([[[1.0], [float("inf")], [3.0], [float("nan")]]])
    got, alone = means(states, ~states[..., 0].isfinite(), torch.arange(4), torch.tensor([3, 1]))
    assert got[0].item() == 2 and alone.tolist() == [False, True]


@pytest.fixture
def sink(reader: Model) -> int:
    """A token of the stories that is far out in the residual stream, and only there."""
    token = reader.tokenizer(" The").input_ids[0]
    embedding = reader.hf.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    embedding.weight[token] *= 300
    return token


def test_outlier_tokens_are_left_out_and_told_of(reader: Model, story_traces: MakeTraces, sink: int) -> None:
    traces = story_traces(reader, 8)
    documents = documents_of(reader, traces)
    got = harvest(reader, traces, [SITE, OTHER])
    touched = 0
    for row, (number, span) in enumerate(got.index):
        document = documents[number]
        start, end = document.spans[span]
        own = [at for at in range(start, end) if document.ids[at] != sink]
        touched += len(own) < end - start
        with torch.no_grad(), capture(reader, SITE) as acts:
            reader.hf(torch.tensor([document.ids]))
        torch.testing.assert_close(got.vectors[SITE][row], acts[SITE][0, own].mean(0), rtol=1e-4, atol=1e-4)
    report = got.outliers[SITE]
    planted = sum(document.ids.count(sink) for document in documents)
    assert touched and report.tokens == planted > touched - 1
    assert report.read == sum(len(document.ids) for document in documents)
    assert report.first == sum(document.ids[0] == sink for document in documents)
    assert report.commonest == [{"id": sink, "text": reader.decode([sink]), "count": planted}]
    assert report.median is not None and report.limit == 10 * report.median
    assert got.outliers[OTHER].tokens == 0, "each site for itself"
    assert "commonest" in str(report) and str(report) in got._repr_html_().replace("&#x27;", "'")


@pytest.mark.usefixtures("sink")
def test_without_a_filter(reader: Model, story_traces: MakeTraces) -> None:
    traces = story_traces(reader, 4)
    filtered, plain = harvest(reader, traces, SITE), harvest(reader, traces, SITE, outliers=None)
    assert plain.vectors[SITE].norm(dim=1).max() > 5 * filtered.vectors[SITE].norm(dim=1).max()
    assert plain.outliers[SITE].tokens == 0 and str(plain.outliers[SITE]) == "none left out"
    assert plain.outliers[SITE].median == filtered.outliers[SITE].median


def test_a_row_of_nothing_else_stays_and_is_flagged(reader: Model, tmp_path: Path, sink: int) -> None:
    plain = tuple(i for i in range(20, 40) if i != sink)
    documents = [Document((*plain, sink, sink), ((0, 5), (5, len(plain) + 1), (len(plain), len(plain) + 2)))]
    got = harvest(reader, documents, SITE, folder=tmp_path / "sentences")
    store = ActivationStore.open(tmp_path / "sentences")
    assert store.index[f"outlier.{SITE}"].to_pylist() == [False, False, True]
    limit = store.outliers[SITE].limit
    assert limit is not None and got.vectors[SITE][2].norm() > limit
    assert store.kept(SITE).tolist() == [0, 1] and len(store.dataset(SITE)) == 2
    tokens = harvest(reader, documents, SITE, unit="token", folder=tmp_path / "tokens")
    texts = tokens.index["text"].to_pylist()
    flags = tokens.index[f"outlier.{SITE}"].to_pylist()
    assert [text for text, flag in zip(texts, flags, strict=True) if flag] == [reader.decode([sink])] * 3
    assert len(tokens) == len(flags) == len(tokens.kept(SITE)) + 3
    assert next(tokens.batches(SITE, 500, seed=0)).norm(dim=1).max() < limit


def test_a_sink_at_the_first_position(reader: Model, story_traces: MakeTraces) -> None:
    """As trained models have it: whatever the token, and not in the prompt's embedding."""

    def first(hidden: torch.Tensor) -> torch.Tensor:
        return hidden * torch.where(torch.arange(hidden.shape[1]) == 0, 400.0, 1.0)[:, None]

    texts = [trace.text for trace in story_traces(reader, 5)]
    plain = harvest(reader, texts, SITE)
    with edit(reader, {SITE: first}):
        got = harvest(reader, texts, SITE)
    assert got.outliers[SITE].tokens == got.outliers[SITE].first == 5
    later = [row for row, (_, span) in enumerate(got.index) if span]
    torch.testing.assert_close(got.vectors[SITE][later], plain.vectors[SITE][later])
    assert got.vectors[SITE].norm(dim=1).max() < 2 * plain.vectors[SITE].norm(dim=1).max()


@pytest.mark.usefixtures("sink")
def test_batches_and_shards_change_neither_limit_nor_report(
    reader: Model, story_traces: MakeTraces, tmp_path: Path
) -> None:
    traces = story_traces(reader, 7)
    told = []
    for batch_tokens, shard_traces in ((1, 512), (8192, 2), (10**5, 512)):
        folder = tmp_path / f"{batch_tokens}"
        harvest(reader, traces, [SITE, OTHER], folder=folder, batch_tokens=batch_tokens, shard_traces=shard_traces)
        manifest = json.loads((folder / "manifest.json").read_text())
        told.append((manifest["sites"], manifest["outliers"], manifest["index"]))
    assert told[0] == told[1] == told[2]


def test_nothing_to_measure(reader: Model, tmp_path: Path) -> None:
    harvest(reader, [], SITE, folder=tmp_path)
    store = ActivationStore.open(tmp_path)
    assert len(store) == 0 and store.scales[SITE].median is None and store.outliers[SITE].tokens == 0
    assert "resid_post.1" in store._repr_html_()
    with edit(reader, {SITE: torch.zeros_like}):
        got = harvest(reader, [[5, 6]], SITE)
    assert got.outliers[SITE].tokens == 0 and not got.vectors[SITE].any()


@pytest.mark.slow
def test_the_sinks_of_a_real_model(smollm2: Model, tmp_path: Path) -> None:
    """Its first token, whatever it is, has two orders of magnitude more norm at mid-depth, and it alone."""
    texts = [
        f"{name} has {n} apples. She eats two, so {n - 2} are left." for n, name in enumerate(("Ann", "Eva", "Mia"), 7)
    ]
    store = harvest(smollm2, texts, ["resid_post.15", "embed"], unit="token", folder=tmp_path, dtype="bfloat16")
    report = store.outliers["resid_post.15"]
    assert report.tokens == report.first == len(texts) and store.outliers["embed"].tokens == 0
    rows = torch.arange(len(store))
    dropped = rows[~torch.isin(rows, store.kept("resid_post.15"))]
    assert store.index["start"].take(dropped.numpy()).to_pylist() == [0, 0, 0]
    assert report.median is not None and store["resid_post.15"][dropped].float().norm(dim=1).min() > 30 * report.median
    sentences = harvest(smollm2, texts, "resid_post.15").vectors["resid_post.15"]
    assert sentences.norm(dim=1).max() < 3 * report.median

import json
from collections.abc import Callable
from dataclasses import replace
from inspect import unwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from probe.activations import ActivationStore, SentenceActivations, documents_of, harvest
from probe.errors import ProbeError
from probe.hooks import capture
from probe.models import Model, load_model
from probe.traces import Traces

SITES = ["resid_post.1", "resid_pre.1", "mlp_out.2"]
MakeTraces = Callable[[Model, int], Traces]


def same(a: SentenceActivations, b: SentenceActivations) -> bool:
    return (
        a.index == b.index
        and a.texts == b.texts
        and a.sites == b.sites
        and all(torch.equal(a.vectors[site], b.vectors[site]) for site in a.sites)
    )


def test_means_of_the_models_own_hidden_states(tiny_folder, arch: str, story_traces: MakeTraces) -> None:
    """In every architecture, against one sequence at a time through output_hidden_states."""
    model = load_model(tiny_folder(arch), device="cpu")
    traces = story_traces(model, 7)
    got = harvest(model, traces, ["resid_post.2", "resid_post.0"], batch_tokens=400)
    row = 0
    for i, trace in enumerate(traces):
        prompt = model.tokenizer(trace.prompt).input_ids
        with torch.no_grad():
            hidden = model.hf(torch.tensor([[*prompt, *trace.tokens]]), output_hidden_states=True).hidden_states
        for number, s in enumerate(trace.sentences):
            assert got.index[row] == (i, number)
            assert got.texts[row] == trace.sentence_text(s)
            for layer in (0, 2):
                naive = hidden[layer + 1][0, len(prompt) + s.token_start : len(prompt) + s.token_end].mean(0)
                torch.testing.assert_close(got.vectors[f"resid_post.{layer}"][row], naive, rtol=1e-4, atol=1e-5)
            row += 1
    assert row == len(got)


def test_a_batch_gives_what_single_rows_give(reader: Model, story_traces: MakeTraces) -> None:
    traces = story_traces(reader, 9)
    single = harvest(reader, traces, SITES, batch_tokens=1)
    batched = harvest(reader, traces, SITES, batch_tokens=100_000)
    assert single.index == batched.index
    for site in SITES:
        torch.testing.assert_close(single.vectors[site], batched.vectors[site], rtol=1e-4, atol=1e-5)


def test_streaming_gives_what_memory_gives(reader: Model, story_traces: MakeTraces, tmp_path: Path) -> None:
    traces = story_traces(reader, 9)
    streamed = harvest(reader, traces, SITES, folder=tmp_path, shard_traces=2)
    assert same(streamed, harvest(reader, traces, SITES, shard_traces=2))
    assert same(streamed, SentenceActivations.load(tmp_path))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert len(manifest["shards"]) == manifest["n_shards"] == 5


class Killed(BaseException):
    pass


@pytest.fixture
def passes(reader: Model):
    """Counts the model's passes; set ``kill_at`` to stop before one of them."""

    class Passes:
        count = 0
        kill_at: int | None = None

    def count(*_: object) -> None:
        if Passes.count == Passes.kill_at:
            raise Killed
        Passes.count += 1

    handle = reader.hf.register_forward_pre_hook(count)
    yield Passes
    handle.remove()


def test_killed_and_resumed_is_never_killed(reader: Model, story_traces: MakeTraces, tmp_path: Path, passes) -> None:
    traces = story_traces(reader, 8)
    whole = harvest(reader, traces, SITES, folder=tmp_path / "whole", shard_traces=2)
    passes.count, passes.kill_at = 0, 3  # the first measures norms
    with pytest.raises(Killed):
        harvest(reader, traces, SITES, folder=tmp_path / "killed", shard_traces=2)
    with pytest.raises(ProbeError, match=r"missing or damaged|lacks .index."):
        SentenceActivations.load(tmp_path / "killed")
    passes.count, passes.kill_at = 0, None
    assert same(harvest(reader, traces, SITES, folder=tmp_path / "killed", shard_traces=2), whole)
    assert passes.count == 2, "finished shards are not made again"
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "killed" / file.name).read_bytes()


@pytest.mark.parametrize("harm", ["cut", "changed", "deleted"])
@pytest.mark.parametrize("name", ["shard-00001.safetensors", "index.parquet"])
def test_a_damaged_file_is_found_and_made_again(
    reader: Model, story_traces: MakeTraces, tmp_path: Path, passes, harm: str, name: str
) -> None:
    traces = story_traces(reader, 6)
    whole = harvest(reader, traces, SITES, folder=tmp_path, shard_traces=2)
    data = (tmp_path / name).read_bytes()
    if harm == "deleted":
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(data[:-7] if harm == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ProbeError, match=f"{name} is missing or damaged; harvest into"):
        SentenceActivations.load(tmp_path)
    passes.count = 0
    assert same(harvest(reader, traces, SITES, folder=tmp_path, shard_traces=2), whole)
    assert passes.count == (1 if name.startswith("shard") else 0)
    assert (tmp_path / name).read_bytes() == data


def test_another_harvest_is_not_written_over(reader: Model, story_traces: MakeTraces, tmp_path: Path) -> None:
    traces = story_traces(reader, 4)
    harvest(reader, traces, SITES, folder=tmp_path)
    with pytest.raises(ProbeError, match="keeps the work of other inputs"):
        harvest(reader, traces[:3], SITES, folder=tmp_path)
    with pytest.raises(ProbeError, match="keeps the work of other inputs"):
        harvest(reader, traces, SITES[:1], folder=tmp_path)


def test_traces_without_tokens_have_no_rows(reader: Model, story_traces: MakeTraces, tmp_path: Path) -> None:
    full = story_traces(reader, 3)
    nothing = replace(full[0], tokens=(), text="", sentences=())
    traces = Traces(full.model_name, full.problems_name, [nothing, full[1], nothing])
    got = harvest(reader, traces, "resid_post.1", folder=tmp_path, shard_traces=1)
    assert {trace for trace, _ in got.index} == {1}
    assert len(got) == len(full[1].sentences)
    assert len(harvest(reader, Traces("m", "p", []), "resid_post.1")) == 0
    assert len(harvest(reader, Traces("m", "p", []), "resid_post.1", folder=tmp_path / "none")) == 0


def test_half_precision_is_kept(reader: Model, story_traces: MakeTraces, tiny_folder) -> None:
    half = load_model(tiny_folder("llama"), device="cpu", dtype="bfloat16")
    traces = story_traces(half, 3)
    got = harvest(half, traces, "resid_post.1")
    assert got.vectors["resid_post.1"].dtype == torch.bfloat16
    full = harvest(reader, traces, "resid_post.1").vectors["resid_post.1"]
    assert torch.cosine_similarity(got.vectors["resid_post.1"].float(), full, dim=1).min() > 0.99


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_are_kept_in_the_format_asked_for(
    reader: Model, story_traces: MakeTraces, tmp_path: Path, dtype: str
) -> None:
    traces = story_traces(reader, 3)
    own = harvest(reader, traces, "resid_post.1").vectors["resid_post.1"]
    got = harvest(reader, traces, "resid_post.1", dtype=dtype, folder=tmp_path).vectors["resid_post.1"]
    assert torch.equal(got, own.to(getattr(torch, dtype)))
    assert ActivationStore.open(tmp_path)["resid_post.1"].dtype == getattr(torch, dtype)


def test_sites_of_any_shape(reader: Model, story_traces: MakeTraces, tmp_path: Path) -> None:
    sites = ["z.1", "mlp_post.2", "model.layers.1.self_attn.k_proj", "logits"]
    traces = story_traces(reader, 4)
    got = harvest(reader, traces, sites, folder=tmp_path, shard_traces=3)
    assert {site: vectors.shape[1] for site, vectors in got.vectors.items()} == dict(
        zip(sites, [32, 64, 16, len(reader.tokenizer)], strict=True)
    )
    store = ActivationStore.open(tmp_path)
    assert store.scales["z.1"].shape == (4, 8) and store.shape("z.1") == (len(got), 32)
    document = documents_of(reader, traces)[2]
    with torch.no_grad(), capture(reader, ["z.1", "logits"]) as acts:
        reader.hf(torch.tensor([document.ids]))
    row = got.index.index((2, 1))
    start, end = document.spans[1]
    for site in ("z.1", "logits"):
        naive = acts[site][0, start:end].mean(0).flatten()
        torch.testing.assert_close(got.vectors[site][row], naive, rtol=1e-4, atol=1e-5)


def test_tokens_are_what_capture_reads(reader: Model, story_traces: MakeTraces, tmp_path: Path) -> None:
    traces = story_traces(reader, 5)
    store = harvest(reader, traces, "resid_post.1", unit="token", folder=tmp_path, shard_traces=2)
    found = []
    for document, trace in zip(documents_of(reader, traces), traces, strict=True):
        with torch.no_grad(), capture(reader, "resid_post.1") as acts:
            reader.hf(torch.tensor([document.ids]))
        found.append(acts["resid_post.1"][0, len(document.ids) - len(trace.tokens) :])
    torch.testing.assert_close(store["resid_post.1"].tensor(), torch.cat(found), rtol=1e-4, atol=1e-5)
    lines = store.index.to_pylist()
    assert [line["text"] for line in lines] == [reader.decode([i]) for trace in traces for i in trace.tokens]
    means = harvest(reader, traces, "resid_post.1")
    rows = [i for i, line in enumerate(lines) if (line["document"], line["span"]) == means.index[7]]
    torch.testing.assert_close(
        means.vectors["resid_post.1"][7], store["resid_post.1"][rows].mean(0), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ProbeError, match=r"holds tokens, not sentences; use ActivationStore\.open"):
        SentenceActivations.load(tmp_path)


def test_what_a_kill_left_half_written_is_cleared_away(reader: Model, story_traces: MakeTraces, tmp_path: Path) -> None:
    traces = story_traces(reader, 2)
    harvest(reader, traces, SITES, folder=tmp_path)
    files = sorted(tmp_path.iterdir())
    for name in (".shard-00000.safetensors.tmp", ".manifest.json.0a1b.tmp"):
        (tmp_path / name).write_text("half")
    harvest(reader, traces, SITES, folder=tmp_path)
    assert sorted(tmp_path.iterdir()) == files


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sites": "resid_post.4"}, "layers 0 to 3"),
        ({"sites": ["resid_post.1", "pattern.1"]}, r"pattern\.1 does not have a vector for each token"),
        ({"sites": []}, "give at least one site"),
        ({"unit": "word"}, "unknown unit 'word'; use sentence or token"),
        ({"unit": "token", "folder": None}, "too large for memory; give a folder"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"outliers": 0.5}, r"outliers=0\.5 is not a multiple"),
        ({"batch_tokens": 0}, "must be at least 1"),
        ({"what": "One text."}, "put it in a list"),
    ],
)
def test_refusals(reader: Model, tmp_path: Path, options: dict, said: str) -> None:
    given: dict[str, Any] = {"what": ["A text."], "sites": "resid_post.1", "folder": tmp_path} | options
    with pytest.raises(ProbeError, match=said):
        unwrap(harvest)(reader, **given)  # as it is outside the tests, where types are not checked
    assert not list(tmp_path.iterdir())


def test_a_module_without_tokens_is_refused_before_the_harvest(reader: Model, tmp_path: Path) -> None:
    reader.hf.model.layers[1].register_module("whole", torch.nn.Identity())
    old = reader.hf.model.layers[1].forward

    def forward(hidden: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        reader.hf.model.layers[1].whole(hidden.mean(1))
        return old(hidden, *args, **kwargs)

    reader.hf.model.layers[1].forward = forward
    with pytest.raises(ProbeError, match=r"model\.layers\.1\.whole does not have a vector for each token"):
        harvest(reader, ["A text."], "model.layers.1.whole", folder=tmp_path)
    assert not list(tmp_path.glob("shard*"))


def test_not_sentences(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"holds no harvest: there is no manifest\.json"):
        SentenceActivations.load(tmp_path)
    (tmp_path / "manifest.json").write_text('{"key": "of long ago", "shards": {}}')
    with pytest.raises(ProbeError, match="another version of probe; delete it"):
        SentenceActivations.load(tmp_path)
    with pytest.raises(ValueError, match="one row per sentence"):
        SentenceActivations({"resid_post.1": torch.zeros(2, 3)}, [(0, 0)], ["a"])


def test_shown(reader: Model, story_traces: MakeTraces) -> None:
    got = harvest(reader, story_traces(reader, 1), "resid_post.1")
    assert "resid_post.1, width 32" in repr(got)
    assert "0 of" in got._repr_html_() and "at position 0" in got._repr_html_()

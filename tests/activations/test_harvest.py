import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from probe._errors import ProbeError
from probe.activations import SentenceActivations, harvest
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
    passes.count, passes.kill_at = 0, 2
    with pytest.raises(Killed):
        harvest(reader, traces, SITES, folder=tmp_path / "killed", shard_traces=2)
    with pytest.raises(ProbeError, match="missing or damaged"):
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
    with pytest.raises(ProbeError, match="other traces, sites or another model"):
        harvest(reader, traces[:3], SITES, folder=tmp_path)
    with pytest.raises(ProbeError, match="other traces, sites or another model"):
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


def test_refusals(reader: Model, story_traces: MakeTraces, tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="layers 0 to 3"):
        harvest(reader, story_traces(reader, 1), "resid_post.4", folder=tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ProbeError, match=r"manifest\.json does not exist"):
        SentenceActivations.load(tmp_path)
    with pytest.raises(ValueError, match="one row per sentence"):
        SentenceActivations({"resid_post.1": torch.zeros(2, 3)}, [(0, 0)], ["a"])


def test_shown(reader: Model, story_traces: MakeTraces) -> None:
    got = harvest(reader, story_traces(reader, 1), "resid_post.1")
    assert "resid_post.1, width 32" in repr(got)
    assert "median norm" in got._repr_html_()

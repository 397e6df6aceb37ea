"""A harvest holds one batch and one shard, whatever the number of documents, and its bytes do not depend on memory."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.peak import Peak
from probe.activations import Document, harvest, harvesting
from probe.activations.passes import tokens_at_once
from probe.activations.shards import ShardFolder
from probe.engine import FolderLock
from probe.errors import ProbeError
from probe.models import Model, Sizes, load_model
from tests.supported_models import tokenizer
from tests.tiny_models import tiny_config, tiny_model

SITE = "resid_post.1"


def documents(n: int, length: int = 60, span: int = 7) -> list[Document]:
    spans = tuple((start, min(start + span, length)) for start in range(2, length, span))
    return [Document(tuple(5 + (i * k) % 20 for i in range(length)), spans) for k in range(1, n + 1)]


@pytest.fixture
def peak(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``peak(model, documents, folder, **options)``: the most bytes that are held until every shard is written.

    The index is not made: it opens the shards, and tensors that are only mapped count like others.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ShardFolder, "end", stop)

    def measure(model: Model, what: list[Document], folder: Path, **options) -> int:
        with Peak() as held, pytest.raises(KeyboardInterrupt):
            harvest(model, what, [SITE, "mlp_post.2"], folder=folder, **options)
        return held.peak

    return measure


@pytest.mark.parametrize("unit", ["sentence", "token"])
@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_documents(reader: Model, tmp_path: Path, peak, unit: str) -> None:
    few, many = (
        peak(reader, documents(n), tmp_path / f"{n}", unit=unit, shard_traces=8, batch_tokens=256) for n in (24, 240)
    )
    assert many < 1.1 * few


def test_a_pass_keeps_to_the_budget(reader: Model, tmp_path: Path, peak) -> None:
    for budget in (2**20, 2**22):
        reader.memory = budget
        used = peak(reader, documents(60, span=60), tmp_path / f"{budget}")
        tokens = json.loads((tmp_path / f"{budget}" / "manifest.json").read_text())["batch_tokens"]
        assert tokens == tokens_at_once(reader, [32, 64]) < 60 * 60
        assert budget / 8 < used < budget


@contextmanager
def memory_for(model: Model, tokens: int, passes: int = 10**9) -> Iterator[None]:
    """A pass of more tokens runs out of memory; after so many passes, the process is interrupted."""
    done = 0

    def check(_: object, __: object, inputs: dict[str, torch.Tensor]) -> None:
        nonlocal done
        done += 1
        if done > passes:
            raise KeyboardInterrupt
        if inputs["input_ids"].numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = model.hf.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_half_as_many_tokens_are_read_when_memory_runs_out(reader: Model, tmp_path: Path, caplog) -> None:
    what = documents(48)
    with memory_for(reader, 600):
        short = harvest(reader, what, SITE, folder=tmp_path / "short", shard_traces=16, batch_tokens=2048)
    assert sum("ran out of memory" in record.getMessage() for record in caplog.records) == 2, "once a halving"
    harvest(reader, what, SITE, folder=tmp_path / "512", shard_traces=16, batch_tokens=512)
    assert files(tmp_path / "short") == files(tmp_path / "512")
    torch.testing.assert_close(short.vectors[SITE], harvest(reader, what, SITE).vectors[SITE], rtol=1e-4, atol=1e-5)
    with memory_for(reader, 40), pytest.raises(ProbeError, match="ran out of memory while harvesting"):
        harvest(reader, what, SITE, folder=tmp_path / "never", shard_traces=8)


def test_in_bfloat16_resumed_is_never_interrupted(tiny_folder, tmp_path: Path) -> None:
    model = load_model(tiny_folder("llama"), device="cpu", dtype="bfloat16")
    what = [document for n in (31, 47, 58, 60, 60, 60, 60, 60) for document in documents(3, n)]
    options: dict[str, Any] = {"shard_traces": 6, "batch_tokens": 200}
    harvest(model, what, SITE, folder=tmp_path / "whole", **options)
    with memory_for(model, 10**9, passes=6), pytest.raises(KeyboardInterrupt):
        harvest(model, what, SITE, folder=tmp_path / "resumed", **options)
    assert 0 < len(list((tmp_path / "resumed").glob("shard-*"))) < 4
    harvest(model, what, SITE, folder=tmp_path / "resumed", shard_traces=6, batch_tokens=8192)
    assert files(tmp_path / "resumed") == files(tmp_path / "whole")


def test_a_shard_of_many_tokens_has_fewer_documents(
    reader: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = [*documents(9), Document(tuple(range(5, 25)) * 8, ((0, 160),)), *documents(2)]
    whole = harvest(reader, what, SITE, unit="token", folder=tmp_path / "whole")
    key = json.loads((tmp_path / "whole" / "key.json").read_text())["key"]
    assert "shard_bytes" not in key and whole.manifest["n_shards"] == 1
    monkeypatch.setattr(harvesting, "_SHARD", 130 * 32 * 4)
    parted = harvest(reader, what, SITE, unit="token", folder=tmp_path / "parted")
    assert parted.index.equals(whole.index)
    torch.testing.assert_close(parted[SITE].tensor(), whole[SITE].tensor(), rtol=1e-4, atol=1e-5)
    assert [len(part) for part in parted[SITE].parts] == [116, 116, 116, 116, 58, 160, 116]
    key = json.loads((tmp_path / "parted" / "key.json").read_text())["key"]
    assert key["shard_bytes"] == 130 * 32 * 4


def test_a_folder_has_one_writer(reader: Model, tmp_path: Path) -> None:
    with FolderLock(tmp_path / "acts"), pytest.raises(ProbeError, match="is being written by process"):
        harvest(reader, documents(3), SITE, folder=tmp_path / "acts")
    assert len(harvest(reader, documents(3), SITE, folder=tmp_path / "acts")) == 27


def test_a_pass_through_linear_attention_reads_fewer_tokens():
    plain = Model(tiny_model(tiny_config("qwen3")), tokenizer())
    scanned = Model(tiny_model(tiny_config("qwen3_5_text")), tokenizer())
    plain.memory = scanned.memory = 10**7
    held = 4 * Sizes.of(scanned.hf.config).scanned
    assert held > 0
    assert tokens_at_once(scanned, [32]) <= 10**7 // held
    assert tokens_at_once(scanned, [32]) < tokens_at_once(plain, [32])

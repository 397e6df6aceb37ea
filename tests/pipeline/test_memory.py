"""A run whose memory runs out somewhere continues with half the size, or ends in one line and resumes.

One whose weights are on disk, because memory has no room for them, is the same run.
"""

import json
import logging
import shutil

import pytest
import torch

from probe.config import from_dict
from probe.errors import ProbeError
from probe.pipeline import RunConfig, run
from tests.pipeline import kills

SMALL = kills.SMALL | {
    "sizes": {"train": 12, "validation": 6, "test": 6},
    "hybrid": {"arms": ["hybrid", "rerank-only", "oracle-free", "lora", "bias", "rank-1"]},
}


class Passes:
    """Counts the calls of every model's blocks, and lets memory run out where it is told to."""

    def __init__(self, monkeypatch) -> None:
        from transformers.models.llama.modeling_llama import LlamaModel

        self.count, self.fails = 0, lambda _number, _rows: False
        forward = LlamaModel.forward

        def counted(module, *args, **kwargs):
            given = kwargs.get("input_ids") if kwargs.get("input_ids") is not None else kwargs.get("inputs_embeds")
            self.count += 1
            if self.fails(self.count, len(given)):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(module, *args, **kwargs)

        monkeypatch.setattr(LlamaModel, "forward", counted)


def figures(found: dict) -> dict:
    """Results without times."""
    found = json.loads(json.dumps(found))
    for arm in found["arms"].values():
        arm.pop("seconds")
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder and the results of a run that has memory enough, and how many passes it took."""
    with pytest.MonkeyPatch.context() as patch:
        passes, out = Passes(patch), tmp_path_factory.mktemp("memory") / "whole"
        return out, run(from_dict(RunConfig, SMALL), out), passes.count


@pytest.mark.slow
def test_memory_that_runs_out_once_changes_nothing(whole, tmp_path, monkeypatch, caplog):
    _, results, total = whole
    passes = Passes(monkeypatch)
    at = {round(total * share) for share in (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)}
    passes.fails = lambda number, _rows: number in at
    with caplog.at_level(logging.WARNING, "probe"):
        found = run(from_dict(RunConfig, SMALL), tmp_path / "short")
    assert sum("ran out of memory while" in record.getMessage() for record in caplog.records) == len(at)
    same, there = figures(results), figures(found)
    for name, arm in same["arms"].items():
        assert there["arms"][name]["accuracy"] == arm["accuracy"]
        assert there["arms"][name]["tokens_per_answer"] == pytest.approx(arm["tokens_per_answer"], rel=0.02)
    assert there["taxonomy"] == same["taxonomy"]


@pytest.mark.slow
def test_memory_that_never_suffices_is_one_line_and_the_run_resumes(whole, tmp_path, monkeypatch):
    passes = Passes(monkeypatch)
    passes.fails = lambda number, _rows: number > 40
    with pytest.raises(ProbeError, match=r"^cpu ran out of memory while .*; free memory there") as raised:
        run(from_dict(RunConfig, SMALL), tmp_path / "run")
    assert "\n" not in str(raised.value)
    passes.fails = lambda _number, _rows: False
    found = run(from_dict(RunConfig, SMALL), tmp_path / "run")
    assert figures(found) == figures(whole[1])


ON_DISK = {"model.embed_tokens": "cpu", "lm_head": "cpu", "model.norm": "disk", "model.layers.1": "disk"} | {
    f"model.layers.{i}": "cpu" for i in (0, 2, 3)
}


@pytest.mark.slow
def test_a_run_with_weights_on_disk_is_the_same_run(whole, tmp_path):
    out, results, _ = whole
    placed = from_dict(RunConfig, SMALL | {"base_device": ON_DISK, "thinking_device": ON_DISK})
    found = run(placed, tmp_path / "disk")
    assert figures(found)["arms"] == figures(results)["arms"]
    # Where models lie is no part of a run's key: each continues the other's folder.
    again = shutil.copytree(out, tmp_path / "again")
    assert figures(run(placed, again)) == figures(results)

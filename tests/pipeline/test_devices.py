"""A run whose models are not on one device gives what it gives on one."""

import pytest

from probe.config import from_dict
from probe.pipeline import RunConfig, run
from tests.pipeline import kills
from tests.pipeline.test_memory import figures

SMALL = kills.SMALL | {
    "sizes": {"train": 6, "validation": 3, "test": 3},
    "hybrid": {"arms": ["oracle-free", "rerank-only", "lora", "bias"]},
}
ON_DISK = {"model.embed_tokens": "cpu", "lm_head": "cpu", "model.norm": "disk", "model.layers.1": "disk"} | {
    f"model.layers.{i}": "cpu" for i in (0, 2, 3)
}


@pytest.mark.slow
def test_a_run_with_weights_on_disk_is_the_same_run(tmp_path):
    whole = run(from_dict(RunConfig, SMALL), tmp_path / "whole")
    placed = from_dict(RunConfig, SMALL | {"base_device": ON_DISK, "thinking_device": ON_DISK})
    found = run(placed, tmp_path / "disk")
    assert figures(found)["arms"] == figures(whole)["arms"]
    # Where models lie is no part of a run's key: each continues the other's folder.
    assert figures(run(placed, tmp_path / "whole")) == figures(whole)

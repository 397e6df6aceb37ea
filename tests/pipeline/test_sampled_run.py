"""A sampled run is the same run, however its work is divided; its results have samples nested in problems."""

import json
import math
from importlib import import_module

import pytest

from probe import RunConfig, run
from probe.config import from_dict
from probe.engine import Shards
from tests.pipeline.kills import SMALL

ARMS = ["oracle-free", "random-vectors", "force-token", "speculative", "lora", "majority"]
SETTINGS = SMALL | {
    "sizes": {"train": 20, "validation": 6, "test": 6},
    "decoding": SMALL["decoding"] | {"max_new_tokens": 60},
    "hybrid": {"arms": ARMS},
}


def without_seconds(results):
    return json.loads(json.dumps(results), object_hook=lambda each: {k: v for k, v in each.items() if k != "seconds"})


@pytest.mark.slow
@pytest.mark.long
def test_shards_of_seven_give_the_same_results(tmp_path, monkeypatch):
    whole = run(from_dict(RunConfig, SETTINGS), tmp_path / "whole")
    made = Shards.__init__
    monkeypatch.setattr(import_module("probe.pipeline.run.tasks"), "SHARD", 7)
    monkeypatch.setattr(Shards, "__init__", lambda self, *args, **more: made(self, *args, **{"size": 7, **more}))
    small = from_dict(RunConfig, SETTINGS | {"decoding": SETTINGS["decoding"] | {"batch_size": 3}})
    parts = run(small, tmp_path / "parts")
    assert len(list((tmp_path / "parts" / "arms" / "hybrid").glob("*.done.json"))) == 4
    assert without_seconds(parts) == without_seconds(whole)
    graded = [json.loads((tmp_path / name / "graded.json").read_text()) for name in ("whole", "parts")]
    assert graded[0] == graded[1]

    samples = {name: arm["samples"] for name, arm in whole["arms"].items()}
    assert samples == dict.fromkeys(samples, 4) | {"majority": 1}
    for name, arm in whole["arms"].items():
        grades = [each if isinstance(each, list) else [each] for each in graded[0]["correct"][name]]
        assert arm["accuracy"] == pytest.approx(sum(map(sum, grades)) / sum(map(len, grades)))
        assert arm["ci"][0] <= arm["accuracy"] <= arm["ci"][1] and arm["n"] == 6
        for k, found in arm["pass_at"].items():
            chances = [1 - math.comb(4 - sum(row), int(k)) / math.comb(4, int(k)) for row in grades]
            assert found["value"] == pytest.approx(sum(chances) / 6)
    assert (tmp_path / "whole" / "report.html").read_text().count("pass@4") == len(samples) - 1

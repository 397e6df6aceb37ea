"""Models that are not on one device: each of a pair on its own, both divided between two, and weights on disk."""

import json
import os
import subprocess
import sys

import pytest

from probe.models import load_pair
from tests.hybrid.stages import stages

DEFAULT = {"hybrid", "oracle-free", "single-vector", "random-category", "min-cosine", "random-vectors"}
DEFAULT |= {"random-positions", "rerank-only", "force-token", "mean-difference", "decoder-rows", "rank-1"}
DEFAULT |= {"speculative", "fusion", "bias"}
INSIDE = {"capture", "edit", "gradient", "upper layers", "sae", "inserted sae", "forced", "lens"}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["pair", "layers"])
def test_two_devices_give_what_one_gives(layout):
    """No stage mixes tensors of two devices, and tokens are the same."""
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    script = [sys.executable, "-m", "tests.hybrid.on_two_devices", layout]
    done = subprocess.run(script, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["differ"] == [] and told["vectors"] == "pretend:0"
    assert {"traces", "harvest", "gates", "losses"} | INSIDE | DEFAULT <= set(told["stages"])


@pytest.mark.slow
def test_weights_on_disk_give_what_weights_in_memory_give(tmp_path):
    on_disk = {"model.embed_tokens": "cpu", "lm_head": "cpu", "model.norm": "disk"}
    on_disk |= {f"model.layers.{i}": ("cpu", "disk")[i % 2] for i in range(4)}
    plain, taxonomy, _ = stages(load_pair("tiny-rl", device="cpu"), folder=tmp_path / "plain")
    pair = load_pair("tiny-rl", device=on_disk)
    found, _, _ = stages(pair, taxonomy, tmp_path / "disk")
    assert [name for name in plain if plain[name] != found[name]] == []
    assert {"lora", "lora loss"} | INSIDE | DEFAULT <= set(plain)
    assert pair.thinking.hf.get_submodule("model.norm").weight.is_meta

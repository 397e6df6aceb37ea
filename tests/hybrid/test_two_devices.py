"""Models that are not on one device: each of a pair on its own, both divided between two, and weights on disk."""

import json

import pytest

from probe.models import load_pair
from tests.forked import done
from tests.hybrid.on_two_devices import compare
from tests.hybrid.stages import differing, stages

DEFAULT = {"hybrid", "oracle-free", "single-vector", "random-category", "min-cosine", "random-vectors"}
DEFAULT |= {"random-positions", "rerank-only", "force-token", "mean-difference", "decoder-rows", "rank-1"}
DEFAULT |= {"speculative", "fusion", "bias"}
INSIDE = {"capture", "edit", "gradient", "upper layers", "sae", "inserted sae", "forced", "lens"}
STAGES = {"traces", "harvest", "gates", "losses", "vectors"} | INSIDE | DEFAULT
MEASURES = {"flips", "naming", "falsify", "contrast", "rollouts", "forced answers", "logit lens", "attention"}
MEASURES |= {"patching", "heads", "diff tokens", "diff truth", "diff knowledge", "diff neurons", "diff massive"}


@pytest.mark.slow
@pytest.mark.parametrize("work", ["stages", "measures"])
@pytest.mark.long
def test_two_devices_give_what_one_gives(work):
    """Nothing mixes tensors of two devices, and tokens and numbers are the same."""
    told = json.loads(done(compare, work).stdout.splitlines()[-1])
    for layout in ("pair", "layers"):
        # torch's backward pass knows one pretended device only, and the thinking model is on the other one.
        expected = (STAGES if work == "stages" else MEASURES) - ({"gradient"} if layout == "pair" else set())
        assert told[layout]["differ"] == [] and expected <= set(told[layout]["done"])


@pytest.mark.slow
def test_weights_on_disk_give_what_weights_in_memory_give(tmp_path):
    on_disk = {"model.embed_tokens": "cpu", "lm_head": "cpu", "model.norm": "disk"}
    on_disk |= {f"model.layers.{i}": ("cpu", "disk")[i == 1] for i in range(4)}
    plain, taxonomy = stages(load_pair("tiny-rl", device="cpu"), folder=tmp_path / "plain")
    pair = load_pair("tiny-rl", device=on_disk)
    found, _ = stages(pair, taxonomy, tmp_path / "disk")
    assert differing(plain, found) == []
    assert STAGES | {"lora", "lora loss"} <= set(plain)
    assert pair.thinking.hf.get_submodule("model.norm").weight.is_meta

"""The settings that a worker process receives, which are the key of the models that it has loaded."""

from pathlib import Path

from probe.models import ModelConfig, PairConfig, find_pair, list_pairs
from probe.pipeline import RunConfig
from probe.pipeline.run.tasks import OpenRun


def test_every_setting_can_be_the_key_of_what_a_worker_has_loaded():
    qwen = {"template": {"enable_thinking": False}, "quantization": {"load_in_4bit": True}}
    own = PairConfig("own", ModelConfig("org/name", prompt="chat", **qwen), ModelConfig("org/name", prompt="chat"))
    layers = {"model.layers.0": 0, "model.layers.1": "cpu"}
    placed = RunConfig(pair="tiny-rl", device=layers, base_device=layers, thinking_device=layers)
    for config, pair in [(placed, own), *((RunConfig(pair=each.name), each) for each in list_pairs())]:
        told = OpenRun(config, pair, Path("out"))
        assert hash(told) == hash(OpenRun(config, pair, Path("out"))) and told == OpenRun(config, pair, Path("out"))
    other = PairConfig("own", ModelConfig("org/name", prompt="chat"), ModelConfig("org/name", prompt="chat"))
    assert OpenRun(placed, own, Path("out")) != OpenRun(placed, other, Path("out"))
    assert hash(find_pair("tiny-rl")) == hash(find_pair("tiny-rl"))

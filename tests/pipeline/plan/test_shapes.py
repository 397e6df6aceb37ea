"""Sizes of models that are counted from configs alone."""

import json

import pytest
from planned import write_config
from tiny_models import tiny_config

from probe.errors import ProbeError
from probe.models import ModelConfig, load_model
from probe.pipeline.plan.shapes import shape_from, shape_of


def test_parameters_are_those_of_the_model_cards(shapes):
    # Published counts of Qwen2.5, in billions: all parameters, and without the tables of tokens.
    for name, whole, inside in (("1.5B", 1.54, 1.31), ("7B", 7.61, 6.53), ("32B", 32.76, 31.21)):
        kinds = shapes[name].parameters
        assert sum(kinds.values()) / 1e9 == pytest.approx(whole, rel=0.005)
        assert (sum(kinds.values()) - kinds["embedding"] - kinds["unembedding"]) / 1e9 == pytest.approx(
            inside, rel=0.01
        )
    assert shapes["1.5B"].parameters["unembedding"] == 0, "it is the embedding, and held once"
    assert shapes["7B"].kv_bytes == 2 * 28 * 4 * 128 * 2


def test_a_shape_is_that_of_the_loaded_model():
    model, shape = load_model("bundled:tiny-base", device="cpu"), shape_of(ModelConfig("bundled:tiny-base"), "float32")
    weights = sum(tensor.numel() * tensor.itemsize for tensor in model.hf.parameters())
    assert (shape.weights, shape.layers, shape.d_model) == (weights, model.n_layers, model.d_model)
    block = model.layers[0]
    assert shape.values == sum(sum(tensor.shape) for tensor in block.parameters() if tensor.ndim == 2)
    assert shape_of(ModelConfig("bundled:tiny-base"), "bfloat16").weights == weights // 2


def test_a_token_runs_through_the_chosen_experts_alone():
    config = tiny_config("qwen3_moe")
    shape = shape_from(config, "float32", "moe")
    assert shape.parameters["experts"] > 0
    assert shape.chosen == config.num_experts_per_tok / config.num_experts == 0.5
    dense = sum(shape.parameters[kind] for kind in ("attention", "mlp"))
    head = shape.parameters["unembedding"] or shape.parameters["embedding"]
    assert shape.active == dense + shape.parameters["experts"] / 2 + head


def test_a_folder_needs_no_more_than_its_config(tmp_path, shapes):
    write_config(tmp_path / "seven", "7B")
    assert [file.name for file in (tmp_path / "seven").iterdir()] == ["config.json"]
    assert shape_of(ModelConfig(str(tmp_path / "seven")), "bfloat16").parameters == shapes["7B"].parameters


def test_a_config_of_no_model_is_one_line(tmp_path):
    told = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 30, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(ProbeError) as refused:
        shape_of(ModelConfig(str(tmp_path)), "float32")
    assert str(tmp_path) in str(refused.value) and "\n" not in str(refused.value)

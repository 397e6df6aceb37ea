"""The hash of a model's weights, and the sums of bits by which an edit is noticed on an accelerator."""

import json

import pytest
import torch

from probe.models import ModelConfig, identity, load_model, model_hash, weights_hash
from probe.models.fingerprint import bit_sum
from tests.adapted import make_adapter


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.bool, torch.float64])
def test_every_edit_of_one_number_changes_the_bits(dtype):
    tensor = (torch.arange(1, 8) % 2).to(dtype)
    before = bit_sum(tensor)
    assert bit_sum(tensor) == before
    tensor.data[3] = 1 - tensor[3].item()  # which torch does not count as an edit
    assert bit_sum(tensor) != before
    tensor.data[3] = 1 - tensor[3].item()
    assert bit_sum(tensor) == before
    tensor[0], tensor[1] = tensor[1].clone(), tensor[0].clone()
    assert bit_sum(tensor) != before, "an exchange is counted by torch"


def test_a_model_s_hash_is_that_of_its_weights_now(tiny_folder):
    model = load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu")
    before = model_hash(model)
    assert before == weights_hash(model.hf.state_dict().items()) == identity(model)["weights"]
    weight = model.layers[1].mlp.up_proj.weight
    weight.data[5, 7] += 1
    assert model_hash(model) != before
    weight.data[5, 7] -= 1
    assert model_hash(model) == weights_hash(model.hf.state_dict().items())


def test_the_scale_of_an_adapter_that_is_not_merged_counts(tiny_folder, tmp_path):
    folder = make_adapter(tiny_folder("llama"), tmp_path / "lora")

    def found():
        config = ModelConfig(str(tiny_folder("llama")), adapter=str(folder), merge=False)
        return identity(load_model(config, device="cpu"))

    before = found()
    assert found() == before
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 2 * settings["lora_alpha"]}))
    assert found() != before

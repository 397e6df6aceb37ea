"""Twins: two models of their own modules over the same tensors, also where accelerate moves the weights."""

import copy
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from accelerate.utils import PrefixedDataset
from transformers import AutoModelForCausalLM, PreTrainedModel

from probe import ProbeError, load_model
from probe.models.loading.adapters import put_on, read_adapter
from probe.models.sharing import adapted_layers, merge_layers, twin, weight_of
from tests.adapted import make_adapter

IDS = torch.arange(5, 25)[None]


def logits(hf: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return hf(input_ids=IDS).logits


def tensors(hf: PreTrainedModel) -> list[int]:
    return [id(tensor) for tensor in (*hf.parameters(), *hf.buffers())]


@pytest.fixture
def hf(tiny_folder, any_arch) -> PreTrainedModel:
    return load_model(tiny_folder(any_arch), device="cpu").hf


def test_a_twin_has_every_tensor_and_no_module_of_the_other(hf):
    other = twin(hf)
    assert tensors(other) == tensors(hf)
    assert not {id(module) for module in hf.modules()} & {id(module) for module in other.modules()}
    assert torch.equal(logits(hf), logits(other))
    assert other.get_input_embeddings() is not hf.get_input_embeddings()
    assert copy.deepcopy(hf.state_dict()).keys() == other.state_dict().keys()


def test_hooks_and_settings_of_one_twin_are_not_the_others(hf):
    other, fired = twin(hf), []
    for module in other.modules():
        module.register_forward_hook(lambda *_: fired.append(1))
    wanted = logits(hf)
    assert not fired
    other.set_attn_implementation("eager")
    other.config.use_cache = False
    assert hf.config.use_cache
    torch.testing.assert_close(logits(other), wanted)
    assert fired


@pytest.mark.parametrize("kind", ["cpu", "disk"])
def test_a_twin_of_offloaded_weights_shares_what_brings_them_back(kind, tiny_folder, tmp_path):
    hf = AutoModelForCausalLM.from_pretrained(tiny_folder("llama")).eval()
    wanted = logits(hf)
    if kind == "cpu":
        hf = cpu_offload(hf, execution_device="cpu")
    else:
        hf = disk_offload(hf, str(tmp_path), execution_device="cpu")
    other = twin(hf)
    assert torch.equal(logits(other), wanted) and torch.equal(logits(hf), wanted)
    maps = [
        {id(module._hf_hook.weights_map) for module in each.modules() if hasattr(module, "_hf_hook")}
        for each in (hf, other)
    ]
    assert maps[0] == maps[1]


def test_an_adapter_is_not_merged_into_offloaded_weights(tiny_folder, tmp_path):
    folder = make_adapter(tiny_folder("llama"), tmp_path / "lora")
    hf = cpu_offload(AutoModelForCausalLM.from_pretrained(tiny_folder("llama")), execution_device="cpu")
    with pytest.raises(ProbeError, match="cannot be merged into weights that are offloaded"):
        put_on(hf, read_adapter(str(folder)), merge=True)


def test_the_weight_of_an_offloaded_layer_copies_no_other_weight(tiny_folder, tmp_path, monkeypatch):
    folder = make_adapter(tiny_folder("llama"), tmp_path / "lora")
    hf = cpu_offload(AutoModelForCausalLM.from_pretrained(tiny_folder("llama")), execution_device="cpu")
    put_on(hf, read_adapter(str(folder)), merge=False)
    layer = next(iter(adapted_layers(hf).values()))

    def refused(*_):
        raise AssertionError("the weights of the whole model were copied")

    monkeypatch.setattr(PrefixedDataset, "__deepcopy__", refused, raising=False)
    weight = weight_of(layer)
    assert layer.get_base_layer().weight.is_meta and not weight.is_meta and weight.any()


def test_the_weight_of_a_layer_counts_its_adapter_and_changes_nothing(tiny_folder, tmp_path):
    folder: Path = make_adapter(tiny_folder("llama"), tmp_path / "lora")
    base, switched = (
        load_model(tiny_folder("llama"), device="cpu").hf,
        load_model(tiny_folder("llama"), device="cpu").hf,
    )
    put_on(switched, read_adapter(str(folder)), merge=False)
    merged = load_model(folder, device="cpu").hf
    before = logits(switched)
    for name, layer in adapted_layers(switched).items():
        torch.testing.assert_close(weight_of(layer), merged.get_submodule(name).weight)
        assert weight_of(base.get_submodule(name)) is not None
    other = twin(switched)
    merge_layers(other)
    assert not adapted_layers(other)
    assert torch.equal(logits(switched), before), "the twin's weights were merged, not these"
    torch.testing.assert_close(logits(other), logits(merged))

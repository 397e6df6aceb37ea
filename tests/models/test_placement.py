"""Models on several devices, or with weights that are offloaded: what is refused, and what stays the same."""

import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.integrations.accelerate import _get_device_map

from probe.errors import NotApplicable, ProbeError
from probe.hooks import Tokens, capture
from probe.models import (
    as_placement,
    bundled_folder,
    check_not_offloaded,
    config_of,
    fingerprint,
    load_model,
    load_pair,
    model_hash,
    seeded,
    stored_tensors,
    weight_of,
)
from probe.models.config import ModelConfig, PairConfig
from probe.models.loading import placement
from probe.models.loading.placement import Placement, placed

GB = 10**9
TINY = "bundled:tiny-base"
OFFLOADED = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "disk",
    "model.layers.3": "cpu",
    "model.norm": "disk",
    "lm_head": "cpu",
}


@pytest.fixture(scope="module")
def plain():
    return load_model(TINY, device="cpu")


@pytest.fixture(scope="module")
def offloaded():
    return load_model(TINY, device=OFFLOADED)


def without(*names):
    return {name: device for name, device in OFFLOADED.items() if name not in names}


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (
            OFFLOADED | {"model.layers.9": "cpu"},
            "'model.layers.9', which is not a module .* did you mean 'model.layers",
        ),
        (without("model.norm"), "leaves out 1 weights of 'bundled:tiny-.*', the first is model.norm.weight"),
        (OFFLOADED | {"model.layers.1.mlp": "cpu"}, "'model.layers.1' and 'model.layers.1.mlp', which is in it"),
        (OFFLOADED | {"lm_head": "disk"}, "lm_head.weight and model.embed_tokens.weight .* are one weight"),
        (OFFLOADED | {"model.norm": "cuda:7"}, "puts 'model.norm' on 'cuda:7': there is no device 'cuda:7'"),
        (OFFLOADED | {"model.norm": 7}, "puts 'model.norm' on '7': there is no device 'cuda:7'"),
        (OFFLOADED | {"model.norm": "gpu"}, "puts 'model.norm' on 'gpu': unknown device 'gpu'"),
        ({"offload_folder": "x"}, "the device map names no module"),
        ("balanced", "there is no GPU on this machine to balance a model over"),
        ("cpu,cpu", "'cpu' in 'cpu,cpu' is not a GPU"),
        ("cuda:0,cuda:1", "there is no device 'cuda:0' on this machine"),
    ],
)
def test_a_placement_that_cannot_be_is_one_line(where, said, monkeypatch):
    def read(*_, **__):
        raise AssertionError("weights were read first")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", read)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for load in (load_model, lambda _, device: load_pair("tiny-rl", device="cpu", thinking_device=device)):
        with pytest.raises(ProbeError, match=said) as refused:
            load(TINY, device=where)
        assert "\n" not in str(refused.value)


@pytest.fixture
def _three_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(placement, "spare_memory", lambda _: 10 * GB)


@pytest.mark.usefixtures("_three_gpus")
def test_blocks_are_balanced_over_the_gpus_that_are_named():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(ModelConfig(TINY)))
    for where, gpus in (("balanced", {0, 1, 2}), ("cuda:0,cuda:2", {0, 2}), ("cuda:2, cuda:1", {1, 2})):
        found = as_placement(where)
        assert isinstance(found, Placement) and found == as_placement(where)
        options = found.options
        assert options["max_memory"] == dict.fromkeys(gpus, 9 * GB)
        made = _get_device_map(model, options["device_map"], options["max_memory"], None)
        assert set(made.values()) == gpus
    assert as_placement("cuda:1") == torch.device("cuda", 1)
    for wrong, said in (("cuda:1,cuda:1", "twice"), ("cuda:0,cuda:3", "no device 'cuda:3'"), ("cuda:0,mps", "mps")):
        with pytest.raises(ProbeError, match=said):
            as_placement(wrong)


@pytest.mark.usefixtures("_three_gpus")
def test_weights_that_do_not_fit_on_the_gpus_are_never_offloaded_in_silence(monkeypatch):
    monkeypatch.setattr(placement, "spare_memory", lambda _: 10**6)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(ModelConfig(TINY)))
    found = as_placement("cuda:0,cuda:1")
    assert isinstance(found, Placement)
    model.hf_device_map = _get_device_map(model, "balanced", found.options["max_memory"], None)
    assert "disk" in model.hf_device_map.values()
    with pytest.raises(ProbeError, match="do not fit into what is free on cuda:0,cuda:1; use more GPUs"):
        placed(model, found, TINY)


@torch.no_grad()
def test_an_offloaded_model_computes_the_same_and_keeps_nothing(plain, offloaded):
    ids = torch.tensor([plain.prompt_ids("Tom has 2 cards. He finds 3 more. How many?")])
    assert torch.equal(plain.hf(ids).logits, offloaded.hf(ids).logits)
    resid = torch.randn(3, plain.d_model, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain.unembed(resid), offloaded.unembed(resid))
    meta = {name for name, weight in offloaded.hf.named_parameters() if weight.is_meta}
    assert {name.split(".")[2] for name in meta if "layers" in name} == {"1", "2"} and "model.norm.weight" in meta
    assert offloaded.device == torch.device("cpu") and offloaded.devices == (torch.device("cpu"),)
    assert offloaded.dtype == plain.dtype and offloaded.budget > 0 and "cpu" in repr(offloaded)


def test_tokens_are_told_apart_while_a_model_with_an_offloaded_embedding_generates(plain):
    offloaded = load_model(TINY, device=OFFLOADED | {"model.embed_tokens": "disk", "lm_head": "disk"})
    ids = torch.tensor([plain.prompt_ids("Tom has 2 cards. He finds 3 more. How many?")])
    found = []
    for model in (plain, offloaded):
        with capture(model, "resid_post.2", tokens=Tokens(phase="generation")) as acts:
            model.hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
        found.append(acts["resid_post.2"])
    assert len(found[0]) and torch.equal(*found)


def test_the_numbers_of_offloaded_weights_are_read_and_not_taken_for_what_stands_there(plain, offloaded):
    assert model_hash(offloaded) == model_hash(plain)
    assert fingerprint(offloaded) == fingerprint(plain)
    for (name, tensor), (other, stored) in zip(
        plain.hf.state_dict().items(), stored_tensors(offloaded.hf), strict=True
    ):
        assert name == other and torch.equal(tensor, stored)
    path = "model.layers.1.mlp.down_proj"
    assert torch.equal(weight_of(offloaded.hf.get_submodule(path)), plain.hf.get_submodule(path).weight)
    assert offloaded.hf.get_submodule(path).weight.is_meta


def test_what_needs_all_weights_in_memory_refuses_an_offloaded_model(plain, offloaded):
    check_not_offloaded(plain.hf, plain.name, "merging")
    with pytest.raises(ProbeError, match="merging needs the weights of tiny-base in memory"):
        check_not_offloaded(offloaded.hf, offloaded.name, "merging")
    with pytest.raises(NotApplicable, match="takes tiny-base on one device"):
        offloaded.lens()


def test_a_map_of_one_device_is_that_device(plain):
    model = load_model(TINY, device={"": "cpu"})
    assert model.devices == plain.devices and not any(weight.is_meta for weight in model.hf.parameters())


@torch.no_grad()
def test_an_adapter_is_switched_on_over_offloaded_weights_that_two_models_share(plain, tmp_path):
    with seeded(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        get_peft_model(load_model(TINY, device="cpu").hf, settings).save_pretrained(tmp_path)

    def pair(merge, device):
        thinking = ModelConfig(TINY, adapter=str(tmp_path), merge=merge)
        return load_pair(PairConfig("own", base=ModelConfig(TINY), thinking=thinking), device=device)

    ids = torch.arange(3, 20)[None]
    [checkpoint] = bundled_folder("tiny-base").glob("*.safetensors")
    before = checkpoint.read_bytes()
    here, apart = pair(False, "cpu"), pair(False, OFFLOADED)
    assert torch.equal(apart.base.hf(ids).logits, plain.hf(ids).logits)
    assert torch.equal(apart.thinking.hf(ids).logits, here.thinking.hf(ids).logits)
    assert (apart.thinking.hf(ids).logits - plain.hf(ids).logits).abs().max() > 1
    assert model_hash(apart.thinking) == model_hash(here.thinking) != model_hash(apart.base)
    assert checkpoint.read_bytes() == before  # PEFT may write its own names into a file that weights are offloaded to
    with pytest.raises(ProbeError, match="cannot be merged into weights that are offloaded"):
        pair(True, OFFLOADED)

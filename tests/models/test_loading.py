"""Loading a model: every way in, and every mistake refused in one line before weights are read."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from probe.errors import ProbeError
from probe.models import Model, ModelConfig, as_device, load_model
from probe.models.loading import loading


@pytest.fixture
def folder(tiny_folder, tmp_path: Path) -> Path:
    """A model folder that a test may damage."""
    return shutil.copytree(tiny_folder("llama", "letters"), tmp_path / "model")


def test_a_loaded_model_is_frozen_and_knows_its_shape(tiny_folder, arch):
    model = load_model(tiny_folder(arch, "letters"))
    assert (model.n_layers, model.d_model, len(model.layers)) == (4, 32, 4)
    assert not model.hf.training
    assert not any(parameter.requires_grad for parameter in model.hf.parameters())
    assert model.eos_ids == (model.tokenizer.eos_token_id,)
    assert model.pad_id == model.tokenizer.pad_token_id
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)


def test_weights_and_dtype_are_those_of_the_folder(tiny_folder):
    from safetensors.torch import load_file

    folder = tiny_folder("qwen3", "letters")
    saved = load_file(folder / "model.safetensors")["model.layers.2.mlp.up_proj.weight"]
    assert torch.equal(load_model(folder).hf.get_parameter("model.layers.2.mlp.up_proj.weight"), saved)
    for dtype in ("bfloat16", torch.bfloat16):
        assert load_model(folder, dtype=dtype).dtype == torch.bfloat16


def test_prompt_text_and_ids(tiny_folder):
    folder = str(tiny_folder("llama", "letters"))
    model = load_model(ModelConfig(folder, prompt="Q: {question} {braces} stay\nA:"))
    assert model.prompt_text("2{x}?") == "Q: 2{x}? {braces} stay\nA:"
    assert model.decode(model.prompt_ids("2{x}?")) == model.prompt_text("2{x}?")


def test_chat_prompt_goes_through_the_template_once(folder):
    turns = "<s>{% for turn in messages %}[{{ turn.role }}] {{ turn.content }}\n{% endfor %}"
    template = turns + "{% if add_generation_prompt %}[me]{% endif %}"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    model = load_model(ModelConfig(str(folder), prompt="chat"))
    assert model.prompt_text("hi") == "<s>[user] hi\n[me]"
    assert model.decode(model.prompt_ids("hi")) == "<s>[user] hi\n[me]"


def test_the_tokenizer_is_the_saved_one_whatever_the_architecture(tiny_folder, arch, words):
    model = load_model(tiny_folder(arch, "words"))
    assert model.tokenizer.get_vocab() == words.get_vocab()
    ids = model.encode("Mia has 22 cards. So 12 + 7 = 19.\n<think> Wait </think> The answer is 19.")
    assert ids == words("Mia has 22 cards. So 12 + 7 = 19.\n<think> Wait </think> The answer is 19.").input_ids


def test_every_id_that_ends_an_answer_is_known(folder):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 1]}))
    assert load_model(folder).eos_ids == (7, 1)


def test_bundled_models_are_found_by_name(tiny_folder, monkeypatch, tmp_path):
    shutil.copytree(tiny_folder("llama", "letters"), tmp_path / "tiny-x")
    monkeypatch.setattr("probe.models.loading.shipped._ROOTS", (tmp_path, tmp_path / "none"))
    assert load_model("bundled:tiny-x").name == "tiny-x"
    assert load_model("tiny-x").name == "tiny-x"
    with pytest.raises(ProbeError, match="did you mean 'tiny-x'"):
        load_model("bundled:tiny-y")


def test_a_hub_id_and_its_revision_are_read_from_the_cache(tiny_folder, monkeypatch, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(tiny_folder("llama", "letters"), tmp_path / "models--org--tiny" / "snapshots" / commit)
    refs = tmp_path / "models--org--tiny" / "refs"
    refs.mkdir()
    (refs / "v1").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = load_model(ModelConfig("org/tiny", revision="v1"))
    assert model.name == "tiny"
    assert "org/tiny@v1" in model._repr_html_()
    with pytest.raises(ProbeError, match="at revision 'v2'"):
        load_model(ModelConfig("org/tiny", revision="v2"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("./nowhere", "no model folder nowhere"),
        ("/no/such/folder", "no model folder /no/such/folder"),
        ("org/nothing", "no model folder 'org/nothing', no bundled model of that name, and no such model"),
        ("weights.gguf", "no GGUF file weights.gguf"),
    ],
)
def test_a_model_that_is_not_there(asked, said):
    with pytest.raises(ProbeError, match=said) as error:
        load_model(asked)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lost", "said"),
    [("config.json", "no config.json"), ("tokenizer.json", "no tokenizer.json"), ("model.safetensors", "no weights")],
)
def test_a_folder_that_is_not_whole(folder, lost, said, monkeypatch):
    (folder / lost).unlink()
    monkeypatch.setattr(loading, "read_model", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(ProbeError, match=said):
        load_model(folder)


def test_a_config_that_is_no_config(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ProbeError, match=r"config\.json:1 is not valid JSON") as error:
        load_model(folder)
    assert "\n" not in str(error.value)


def test_a_model_that_is_no_decoder(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(ProbeError, match=r"t5.* is not a decoder-only language model"):
        load_model(folder)


def test_missing_weights_are_refused_and_not_drawn_at_random(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ProbeError, match=r"1 weights of .* missing, the first is model\.layers\.1\.mlp\.up_proj"):
        load_model(folder)


def test_weights_that_do_not_fit_the_config_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(ProbeError, match=r"mlp\.down_proj\.weight of .* has shape \[32, 64\], but .* for \[32, 48\]"):
        load_model(folder)


def test_altered_weights_are_refused(folder):
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ProbeError, match="cannot be read"):
        load_model(folder)


def test_chat_without_a_template_is_refused(tiny_folder):
    with pytest.raises(ProbeError, match="no chat template"):
        load_model(ModelConfig(str(tiny_folder("llama", "letters")), prompt="chat"))


def test_a_prompt_needs_a_place_for_the_question():
    with pytest.raises(ProbeError, match=r"no \{question\}"):
        ModelConfig("x", prompt="Solve:")


def test_devices_and_dtypes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert as_device("auto").type == "cpu"
    with pytest.raises(ProbeError, match="no device 'cuda' on this machine; use cpu"):
        load_model("anything", device="cuda")
    with pytest.raises(ProbeError, match="unknown device 'gpu'"):
        load_model("anything", device="gpu")
    with pytest.raises(ProbeError, match="unknown dtype 'int8'; use one of float32"):
        load_model("anything", dtype="int8")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert as_device("cuda:1").index == 1
    with pytest.raises(ProbeError, match="no device 'cuda:2' on this machine; use cuda:0 to cuda:1"):
        as_device("cuda:2")


def test_a_model_of_ones_own_and_how_it_shows(tiny_folder, letters):
    loaded = load_model(tiny_folder("gpt2", "letters"))
    model = Model(loaded.hf, letters)
    assert repr(model).startswith("Model(gpt2: GPT2LMHeadModel, 4 layers, width 32")
    assert "<caption>gpt2</caption>" in model._repr_html_()

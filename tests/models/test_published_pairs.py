"""The published pairs: their YAML files, against configs of the real sizes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from probe.config import from_dict, to_dict
from probe.errors import ProbeError
from probe.models import (
    ModelConfig,
    PairConfig,
    Published,
    bundled_folder,
    find_pair,
    list_pairs,
    pair_file,
    parameter_counts,
    shares_weights,
    weights_memory,
)

PUBLISHED = [pair for pair in list_pairs() if pair.published is not None]
NAMES = [pair.name for pair in PUBLISHED]
#: The nine pairs of 2510.07364v4: steering layer, layer and size of the taxonomy.
NINE = {
    "orz-0.5b": (9, 8, 10),
    "orz-1.5b": (10, 4, 10),
    "orz-7b": (10, 20, 10),
    "orz-32b": (24, 27, 15),
    "r1-14b": (18, 38, 5),
    "r1-32b": (24, 27, 15),
    "qwq-32b": (24, 27, 10),
    "r1-llama-8b": (12, 6, 15),
    "r1-math-1.5b": (10, 4, 15),
}
CONFIGS = Path(__file__).parent / "published"


def config_folder(model: ModelConfig) -> Path:
    return CONFIGS / model.path.replace("/", "--")


@pytest.fixture(scope="module")
def sizes():
    """The layers and parameters of a model, from its config with weights that take no memory."""
    known = {}

    def sized(model: ModelConfig) -> tuple[int, int]:
        folder = config_folder(model)
        same = json.dumps({**json.loads((folder / "config.json").read_text()), "quantization_config": None})
        if same not in known:
            config = AutoConfig.from_pretrained(folder)
            if hasattr(config, "quantization_config"):
                del config.quantization_config
            with torch.device("meta"):
                hf = AutoModelForCausalLM.from_config(config)
            known[same] = hf.config.num_hidden_layers, sum(each.numel() for each in hf.parameters())
        return known[same]

    return sized


@pytest.mark.parametrize("pair", PUBLISHED, ids=NAMES)
def test_the_facts_of_a_published_pair_agree_with_the_configs_of_its_models(pair, sizes):
    (base_layers, base), (layers, thinking) = sizes(pair.base), sizes(pair.thinking)
    assert parameter_counts(pair) == (base, thinking)
    facts = pair.published
    if facts.steering_layer is not None:
        assert facts.steering_layer < base_layers
        assert int(facts.site.removeprefix("resid_post.")) < layers
    assert facts.base.licence and facts.thinking.licence


def test_the_nine_pairs_of_the_paper_have_its_layers_and_sizes():
    found = {
        pair.name: (pair.published.steering_layer, int(pair.published.site.split(".")[1]), pair.published.size)
        for pair in PUBLISHED
        if pair.published.source == "arXiv 2510.07364v4"
    }
    assert found == NINE


@pytest.mark.parametrize("name", NAMES)
def test_a_published_pair_is_found_by_the_name_of_its_file(name):
    assert find_pair(name).name == name == pair_file(name).stem


def test_memory_is_that_of_both_models_or_of_one_that_they_share():
    memory = {name: weights_memory(find_pair(name)) for name in ("orz-1.5b", "r1-math-1.5b", "qwen3-1.7b-on-off")}
    assert memory["orz-1.5b"] == 2 * 2 * 1_543_714_304
    assert memory["r1-math-1.5b"] == 2 * (1_543_714_304 + 1_777_088_000)
    assert memory["qwen3-1.7b-on-off"] == 2 * 1_720_574_976
    assert weights_memory(find_pair("qwen3-1.7b-on-off"), bytes_each=4) == 4 * 1_720_574_976


def test_an_adapter_is_counted_once_where_it_is_switched_and_twice_where_it_is_merged():
    tina = to_dict(find_pair("tina-1.5b"))
    assert weights_memory(from_dict(PairConfig, tina)) == 2 * 1_777_088_000
    tina["thinking"]["merge"] = True
    assert weights_memory(from_dict(PairConfig, tina)) == 2 * 2 * 1_777_088_000


def test_the_parameters_of_a_bundled_pair_are_counted_in_its_files():
    from safetensors.torch import load_file

    tensors = load_file(bundled_folder("tiny-base") / "model.safetensors")
    assert parameter_counts(find_pair("tiny-rl"))[0] == sum(each.numel() for each in tensors.values())


def test_the_size_of_an_adapter_by_its_own_path_is_not_taken_for_that_of_a_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    shutil.copyfile(bundled_folder("tiny-base") / "model.safetensors", tmp_path / "adapter_model.safetensors")
    pair = PairConfig("mine", ModelConfig("bundled:tiny-base"), ModelConfig(str(tmp_path)))
    assert parameter_counts(pair)[1] is None and weights_memory(pair) is None


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1", bytes([2, 0, 0, 0, 0, 0, 0, 0]) + b"[]"]
)
def test_damaged_weights_are_named_in_one_line(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    model = ModelConfig(str(tmp_path), prompt="{question}")
    with pytest.raises(ProbeError, match=r"the weights .*model\.safetensors cannot be read"):
        weights_memory(PairConfig("mine", model, model))


def test_an_adapter_of_another_commit_does_not_share_weights():
    adapter = {"path": "org/base", "adapter": "org/adapter"}
    one, other = (ModelConfig(**adapter, adapter_revision=commit) for commit in ("a", "b"))
    assert shares_weights(PairConfig("mine", one, one)) and not shares_weights(PairConfig("mine", one, other))


def test_the_size_of_a_model_that_is_not_here_is_not_guessed():
    pair = PairConfig("mine", ModelConfig("org/base", prompt="{question}"), ModelConfig("org/t", prompt="{question}"))
    assert parameter_counts(pair) == (None, None) and weights_memory(pair) is None


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("orz")])
def test_the_prompt_of_orz_ends_in_an_open_think_tag_and_asks_for_a_box(name):
    prompt = find_pair(name).thinking.prompt
    assert prompt.endswith("\nAssistant: <think>")
    assert prompt.count("{question}") == 1 and r"\boxed{} tag.\n{question}\n\nPlease".replace(r"\n", "\n") in prompt


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sampling": {"temperature": -1, "top_p": 0.9}}, r"sampling\.temperature is -1\.0; it must be at least 0"),
        ({"site": "blocks.4"}, "published.site is 'blocks.4'; write the output of a block, such as resid_post.4"),
        ({"steering": 3}, "unknown key 'steering'.*did you mean 'steering_layer'"),
        ({"source": 7}, "source must be text"),
    ],
)
def test_a_wrong_fact_is_refused_in_one_line(change, said):
    facts = to_dict(find_pair("orz-7b").published)
    with pytest.raises(ProbeError, match=said):
        from_dict(Published, facts | change)


def test_a_copied_yaml_of_a_published_pair_is_the_same_pair(tmp_path):
    (tmp_path / "mine.yaml").write_text(pair_file("r1-14b").read_text())
    assert find_pair(tmp_path / "mine.yaml") == find_pair("r1-14b")


def test_settings_without_facts_are_saved_as_before():
    assert "published" not in to_dict(find_pair("tiny-rl"))

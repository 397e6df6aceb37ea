"""Recipes: what they set, what wins over them, and a plan by one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from probe.cli import app
from probe.config import to_dict
from probe.errors import ProbeError
from probe.models import find_pair, list_pairs, weights_memory
from probe.pipeline import RunConfig, plan
from probe.pipeline.run.kept import keep_inputs, recalled
from probe.pipeline.run.recipe import recipe_names, with_recipe
from probe.problems import SPLITS
from probe.problems.mix import Mix

CONFIGS = Path(__file__).parents[1] / "models" / "published"
PUBLISHED = [pair.name for pair in list_pairs() if pair.published is not None]


def test_the_recipe_of_version_2_takes_site_size_and_layer_from_the_pair():
    config = RunConfig.of_recipe("v2-published", pair="r1-14b")
    assert (config.taxonomy.sites, config.taxonomy.sizes) == (("resid_post.38",), (5,))
    assert (config.taxonomy.family, config.taxonomy.k) == ("topk", 3)
    assert config.steering.layer == 18
    assert config.decoding.max_new_tokens == 2048
    assert config.problems == "v2-published"
    assert {"v2", "v2-random-category", "v2-random-positions"} <= set(config.hybrid.names)


def test_version_1_searches_the_published_strengths():
    hybrid = RunConfig.of_recipe("v1-published", pair="qwq-32b").hybrid
    assert (hybrid.v1_strengths, hybrid.v1_windows) == ((0.5, 0.6, 0.7, 0.8, 0.9, 1.0), (0,))
    assert {"v1", "v1-bias-only", "v1-random-vectors"} <= set(hybrid.names)


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("pair", [*PUBLISHED, "tiny-rl"])
def test_every_recipe_is_valid_for_every_pair(name, pair):
    assert RunConfig.of_recipe(name, pair=pair).pair == pair


@pytest.mark.parametrize("name", ["v1-published", "v2-published"])
def test_a_recipe_asks_for_no_more_problems_than_its_mix_names(name):
    config = RunConfig.of_recipe(name, pair="orz-7b")
    assert config.problems is not None
    mix = Mix.read(config.problems)
    for split in SPLITS:
        shares = mix.of(split).values()
        if "all" not in shares:
            assert getattr(config.sizes, split) == sum(shares)


def test_what_is_given_wins_and_the_rest_stays():
    given = {"pair": "orz-7b", "taxonomy": {"sites": ["resid_post.3"]}, "steering": {"steps": 7}, "seed": 5}
    config = RunConfig.of_recipe("v2-published", **given)
    assert (config.taxonomy.sites, config.taxonomy.sizes, config.seed) == (("resid_post.3",), (10,), 5)
    assert (config.steering.steps, config.steering.layer) == (7, 10)


def test_several_layers_replace_the_layer_of_the_recipe():
    config = RunConfig.of_recipe("v2-published", pair="orz-7b", steering={"layers": [3, 5]})
    assert (config.steering.layers, config.steering.layer) == ((3, 5), None)


def test_other_problems_have_the_usual_numbers():
    sizes = RunConfig.of_recipe("v2-published", pair="orz-7b", problems="gsm8k").sizes
    assert sizes == RunConfig(pair="orz-7b").sizes


def test_a_mix_that_names_as_many_problems_keeps_the_numbers(tmp_path):
    by_recipe = RunConfig.of_recipe("v2-published", pair="orz-7b").sizes
    for_gsm8k = RunConfig.of_recipe("v2-published", pair="orz-7b", problems="v2-published-gsm8k", sizes={"test": 1319})
    assert for_gsm8k.sizes == replace(by_recipe, test=1319)
    (tmp_path / "copy.yaml").write_text("train: {gsm8k: 10000}\nvalidation: {math-train: 995}\ntest: {math500: all}\n")
    copied = {"problems": str(tmp_path / "copy.yaml")}
    assert RunConfig.of_recipe("v2-published", pair="orz-7b", **copied).sizes == by_recipe
    (tmp_path / "copy.yaml").write_text("train: {gsm8k: 100}\nvalidation: {math-train: 995}\ntest: {math500: all}\n")
    assert RunConfig.of_recipe("v2-published", pair="orz-7b", **copied).sizes == RunConfig(pair="orz-7b").sizes


def test_a_pair_without_facts_has_the_usual_sites_and_layers():
    config = RunConfig.of_recipe("v2-published", pair="tiny-rl")
    assert (config.taxonomy.sites, config.steering.layer) == ((), None)


def test_settings_without_a_recipe_are_left_alone():
    assert with_recipe({"pair": "a", "seed": 3}) == {"pair": "a", "seed": 3}


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ProbeError, match="unknown recipe 'v2-publishd'; did you mean 'v2-published'"):
        RunConfig.of_recipe("v2-publishd", pair="orz-7b")


def with_configs(name: str, folder: Path) -> Path:
    """Write the YAML of a published pair with folders that hold nothing but the configs of its models."""
    pair = to_dict(find_pair(name))
    for role in ("base", "thinking"):
        pair[role]["path"] = str(CONFIGS / pair[role]["path"].replace("/", "--"))
    (folder / "pair.yaml").write_text(yaml.safe_dump(pair))
    return folder / "pair.yaml"


@pytest.mark.parametrize("name", ["r1-math-1.5b", "smollm3-3b-on-off"])
def test_a_plan_finds_the_memory_of_the_weights_that_is_listed(name, tmp_path):
    config = RunConfig(pair=str(with_configs(name, tmp_path)), dtype="bfloat16", device="cpu")
    made = plan(config, memory=10**12)
    weights = [model["weights"] for model in made.as_dict()["models"].values()]
    assert (weights[0] if made.setup.shared else sum(weights)) == weights_memory(find_pair(name))


def test_a_plan_by_a_recipe_counts_its_traces_and_arms(tmp_path):
    local_pair = with_configs("orz-1.5b", tmp_path)

    def planned(*options: str) -> dict:
        done = CliRunner().invoke(
            app, ["plan", "--pair", str(local_pair), "--device-memory", "80GB", "--json", *options]
        )
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    by_recipe = planned("--recipe", "v2-published")
    (tmp_path / "run.yaml").write_text("recipe: v2-published\n")
    assert planned("--config", str(tmp_path / "run.yaml")) == by_recipe
    fewer = planned("--recipe", "v2-published", "--traces", "100")
    assert fewer != by_recipe
    assert "v2" in json.dumps(by_recipe)


def test_a_run_keeps_a_mix_so_that_it_names_the_same_sets_from_its_own_folder(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    mix = tmp_path / "m.yaml"
    mix.write_text("train: {a.jsonl: 1}\ntest: {a.jsonl: all}")
    before, out = Mix.read(str(mix)), tmp_path / "run"
    out.mkdir()
    keep_inputs(RunConfig(pair="tiny-rl", problems=str(mix)), find_pair("tiny-rl"), out)
    mix.unlink()
    config, _ = recalled(out)
    assert config.problems == str(out / "problems" / "m.yaml") and Mix.read(config.problems) == before
    assert before.train == {str(tmp_path / "a.jsonl"): 1}

"""Every pipeline on pairs whose thinking member is an adapter, or the base's own weights with another prompt."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from probe.adapters import save_sparsify
from probe.cli import app
from probe.config import from_dict, to_dict
from probe.errors import ProbeError
from probe.models import ModelConfig, Pair, PairConfig, bundled_folder, find_pair, load_pair
from probe.pipeline import (
    AdapterConfig,
    CircuitConfig,
    DiffConfig,
    DiscoverConfig,
    RunConfig,
    diff,
    discover,
    find_circuit,
    run,
    tune_adapter,
)
from probe.problems import load_problems
from probe.traces import decode_greedy
from tests.adapted import extract_adapter, make_adapter
from tests.adapters.conftest import random_topk

SMALL = {
    "device": "cpu",
    "shown": 2,
    "look": 0,
    "sizes": {"train": 10, "validation": 5, "test": 5},
    "decoding": {"batch_size": 4, "max_new_tokens": 40},
    "taxonomy": {"sizes": [3], "k": 1, "steps": 20, "seeds": [0, 1]},
    "steering": {"steps": 3, "seeds": [0]},
    "policy": {"steps": 10},
    "distil": {"steps": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """tiny-rl as a LoRA on tiny-base."""
    there = tmp_path_factory.mktemp("adapters") / "rl"
    return extract_adapter(bundled_folder("tiny-base"), bundled_folder("tiny-rl"), there)


@pytest.fixture(scope="module")
def merged(folder) -> PairConfig:
    pair = find_pair("tiny-rl")
    return replace(pair, name="lora", thinking=replace(pair.thinking, path=str(folder)))


@pytest.fixture(scope="module")
def switched(merged) -> PairConfig:
    return replace(merged, thinking=replace(merged.thinking, merge=False))


@pytest.fixture
def pair_file(switched, tmp_path) -> Path:
    """A merged adapter is weights like any others, so what is switched is tested."""
    file = tmp_path / "switched.yaml"
    file.write_text(yaml.safe_dump(to_dict(switched)))
    return file


def texts(pair: Pair, n: int = 6, max_new_tokens: int = 60) -> list[list[int]]:
    """The tokens that the thinking model of a pair writes."""
    model = pair.thinking
    prompts = [model.prompt_ids(problem.question) for problem in load_problems("story").take("test", n)]
    return [list(each.tokens) for each in decode_greedy(model, prompts, max_new_tokens)]


def written(out: Path) -> dict[str, list[str]]:
    """The text that every arm of a run wrote for the problems that are shown."""
    shown = json.loads((out / "shown.json").read_text())
    return {name: [_text(each["arms"][name]) for each in shown] for name in shown[0]["arms"]}


def _text(answer: dict) -> str:
    if "text" in answer:
        return answer["text"]
    return "".join(answer["tokens"]["texts"][i] for i in answer["tokens"]["emitted"])


def differing(results: dict) -> dict[str, bool]:
    """Whether the models differ in each part of a comparison."""
    return {finding["part"]: finding["differs"] for finding in results["findings"]}


def test_merged_and_switched_write_the_same_tokens(merged, switched):
    one, other = load_pair(merged, device="cpu"), load_pair(switched, device="cpu")
    found = texts(one)
    assert found == texts(other)
    assert found != texts(
        load_pair(replace(merged, thinking=replace(merged.thinking, path="bundled:tiny-base")), device="cpu")
    )


@pytest.mark.slow
def test_a_run_of_an_adapter_is_the_same_merged_and_switched(merged, switched, tmp_path):
    found = {}
    for name, pair in (("merged", merged), ("switched", switched)):
        members = {"base": to_dict(pair.base), "thinking": to_dict(pair.thinking)}
        config = from_dict(
            RunConfig, SMALL | members | {"problems": "story", "hybrid": {"arms": ["force-token", "lora"]}}
        )
        found[name] = run(config, tmp_path / name)
    arms = [{name: arm["accuracy"] for name, arm in each["arms"].items()} for each in found.values()]
    assert arms[0] == arms[1] and {"base", "thinking", "hybrid", "lora"} <= set(arms[0])
    assert found["merged"]["oracle"]["bits_per_token"] > 0
    of = [written(tmp_path / name) for name in found]
    assert of[0] == of[1]
    assert of[0]["force-token"] == of[0]["thinking"] != of[0]["base"]


@pytest.mark.slow
def test_two_options_of_the_command_are_enough(folder, tmp_path):
    config = tmp_path / "small.yaml"
    config.write_text(json.dumps(SMALL | {"sizes": {"train": 6, "validation": 3, "test": 3}, "hybrid": {"arms": []}}))
    prompt = find_pair("tiny-rl").thinking.prompt
    told = ["--base", "tiny-base", "--thinking", str(folder), "--base-prompt", prompt, "--thinking-prompt", prompt]
    done = CliRunner().invoke(
        app, ["run", *told, "--problems", "story", "--config", str(config), "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "results.json").read_text())["pair"] == folder.name


@pytest.mark.slow
def test_identical_prompts_on_shared_weights_have_no_gap_and_no_diff(tmp_path):
    member = find_pair("tiny-rl").thinking
    members = {"base": to_dict(member), "thinking": to_dict(member), "problems": "story"}
    found = run(from_dict(RunConfig, SMALL | members | {"hybrid": {"arms": ["force-token"]}}), tmp_path / "run")
    assert all(gap == {"value": None, "ci": None} for gap in found["gap_recovered"].values())
    assert found["oracle"]["bits_per_token"] == 0
    arms = written(tmp_path / "run")
    assert arms["hybrid"] == arms["force-token"] == arms["thinking"] == arms["base"]
    file = tmp_path / "pair.yaml"
    file.write_text(yaml.safe_dump(to_dict(PairConfig("same", member, member, problems="story", max_new_tokens=100))))
    small = {"parts": ["tokens"], "train": 6, "n_pairs": 8, "test": 2, "device": "cpu"}
    results = diff(from_dict(DiffConfig, small | {"pair": str(file), "behaviour": "check"}), tmp_path / "diff")
    assert differing(results) == {"tokens": False}


@pytest.mark.slow
def test_a_discovery_on_an_adapter(pair_file, tmp_path):
    small = {
        **{"pair": str(pair_file), "device": "cpu", "shown": 2, "sizes": {"train": 8, "validation": 6}},
        "decoding": {"batch_size": 4, "max_new_tokens": 60},
        "taxonomy": {"sites": ["resid_post.2"], "sizes": [3], "seeds": [0, 1], "steps": 10, "rivals": []},
        "falsify": {"sentences": 2, "prefixes": 1, "samples": 2, "new_tokens": 8},
    }
    discover(from_dict(DiscoverConfig, small), tmp_path / "out")
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.slow
def test_a_circuit_of_an_adapter_is_that_of_the_merged_model(merged, switched, tmp_path):
    found = {}
    for name, pair in (("merged", merged), ("switched", switched)):
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(to_dict(pair)))
        small = {"train": 30, "test": 4, "n_pairs": 10, "steps": 2, "draws": 1, "shares": [0.1, 1.0], "device": "cpu"}
        config = from_dict(CircuitConfig, small | {"pair": str(file), "behaviour": "check"})
        found[name] = find_circuit(config, tmp_path / name)
    assert found["merged"]["edges"] == found["switched"]["edges"]
    assert found["switched"]["faithfulness"]["values"] == pytest.approx(
        found["merged"]["faithfulness"]["values"], abs=1e-3
    )


@pytest.mark.slow
def test_a_diff_of_a_base_and_its_adapter(pair_file, tmp_path):
    small = {"parts": ["tokens", "heads", "neurons", "massive"], "train": 24, "n_pairs": 8, "test": 2, "draws": 1}
    more = {"heads": 1, "factors": [0.5], "device": "cpu", "pair": str(pair_file), "behaviour": "check"}
    results = diff(from_dict(DiffConfig, small | more), tmp_path / "out")
    assert differing(results)["tokens"] and not results["missing"]


@pytest.fixture
def tuning(merged, tmp_path) -> dict:
    """Settings that train an adapter of SAE-tuning on the thinking member."""
    lines = [{"prompt": "Question:", "text": f" {p.question}"} for p in load_problems("story").take("train", 20)]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    sae = save_sparsify(random_topk(d_in=128, site="blocks.1.hook_resid_post"), tmp_path / "sae")
    tune = {"steps": 4, "batch_tokens": 100, "check_every": 2, "lr": 0.01}
    member = to_dict(merged.thinking)
    return {"model": member, "texts": str(tmp_path / "texts.jsonl"), "sae": str(sae), "device": "cpu", "tune": tune}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_is_trained_on_a_member_that_is_one(tuning, tmp_path):
    done, found = tune_adapter(from_dict(AdapterConfig, tuning), tmp_path / "out")
    assert done.folder.is_dir() and found is not None
    assert done.best["loss"] <= done.history[0]["loss"]


def test_no_adapter_is_trained_on_one_that_is_switched(tuning, tmp_path):
    tuning["model"]["merge"] = False
    with pytest.raises(
        ProbeError, match="has an adapter that is not merged, so it takes no further one; remove merge: false"
    ):
        tune_adapter(from_dict(AdapterConfig, tuning), tmp_path / "out")


@pytest.mark.slow
def test_an_adapter_on_a_real_checkpoint_is_the_same_merged_and_switched(smollm2, tmp_path):
    folder = make_adapter(smollm2.hf.config._name_or_path, tmp_path / "lora", size=0.05)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "smollm2-135m"}))
    base = ModelConfig("smollm2-135m")
    pairs = [
        load_pair(PairConfig("lora", base, ModelConfig(str(folder), prompt="chat", merge=merge)), device="cpu")
        for merge in (True, False)
    ]
    found = [texts(pair, n=1, max_new_tokens=8) for pair in pairs]
    assert found[0] == found[1]
    prompts = [pairs[1].base.prompt_ids(problem.question) for problem in load_problems("story").take("test", 1)]
    plain = [list(each.tokens) for each in decode_greedy(pairs[1].base, prompts, 8)]
    assert plain == [list(each.tokens) for each in decode_greedy(smollm2, prompts, 8)] != found[1]
    own = {tensor.data_ptr() for tensor in pairs[1].base.hf.parameters()}
    more = [tensor for tensor in pairs[1].thinking.hf.parameters() if tensor.data_ptr() not in own]
    assert sum(map(torch.numel, more)) < 0.01 * smollm2.hf.num_parameters()

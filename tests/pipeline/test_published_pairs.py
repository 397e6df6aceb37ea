"""Every published pair from loading to traces, and a run of one of each kind, on tiny models of their architectures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from probe.config import from_dict, to_dict
from probe.models import Pair, find_pair, list_pairs, load_pair
from probe.pipeline import RunConfig, run
from probe.problems import load_problems
from probe.traces import generate_traces
from tests.published_models import tiny_pair

pytestmark = pytest.mark.slow

NAMES = [pair.name for pair in list_pairs() if pair.published is not None]
#: Two checkpoints, one with two prompts, experts, an adapter, blocks without rotary positions, and sliding windows.
KINDS = [
    "orz-0.5b", "qwen3-1.7b-on-off", "gpt-oss-20b-low-high", "tina-1.5b", "smollm3-3b-on-off", "olmo3-7b-rl-zero",
]  # fmt: skip
QUESTION = "Ann has 3 apples. She buys 4 more. How many apples does she have?"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("published")


@pytest.fixture(scope="module")
def loaded(root, words):
    """``loaded(name)``: a published pair with tiny models, loaded once."""
    pairs: dict[str, Pair] = {}

    def load(name: str) -> Pair:
        if name not in pairs:
            pairs[name] = load_pair(tiny_pair(find_pair(name), root, words), device="cpu")
        return pairs[name]

    return load


@pytest.mark.parametrize("name", NAMES)
def test_a_published_pair_answers_two_problems(loaded, name):
    pair, problems = loaded(name), load_problems("story")
    asked = problems.take("test", 2)
    for model in (pair.base, pair.thinking):
        traces = generate_traces(model, problems, asked, max_new_tokens=12)
        for trace, problem in zip(traces, asked, strict=True):
            assert problem.question in trace.prompt
            assert 0 < len(trace.tokens) <= 12 and trace.correct in (True, False)


def prompts(pair: Pair) -> tuple[str, str]:
    return pair.base.prompt_text(QUESTION), pair.thinking.prompt_text(QUESTION)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("orz", "r1", "qwq"))])
def test_the_pairs_of_the_paper_are_asked_as_in_the_paper(loaded, name):
    pair = loaded(name)
    base, thinking = prompts(pair)
    assert base == f"Answer the following question:\nQ: {QUESTION}\nA:"
    boxed = f"{QUESTION}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."
    assert boxed in thinking
    assert pair.think_tags.opened_by(thinking) and not pair.think_tags.opened_by(base)
    ends = {"orz": "Assistant: <think>", "r1-": "<｜Assistant｜><think>\n", "qwq": "assistant\n<think>\n"}
    assert thinking.endswith(ends[name[:3]])


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("on-off")])
def test_the_switch_of_one_checkpoint_is_off_in_the_base_and_on_in_the_thinking_model(loaded, name):
    off, on = prompts(loaded(name))
    assert off.rstrip().endswith("<think>\n\n</think>") and "<think>\n\n</think>" not in on
    assert QUESTION in off and QUESTION in on


def test_the_efforts_of_gpt_oss_are_in_its_prompts(loaded):
    low, high = prompts(loaded("gpt-oss-20b-low-high"))
    assert "Reasoning: low" in low and "Reasoning: high" in high
    assert low.replace("low", "high") == high


def test_olmo_is_asked_by_its_own_instruction_and_opens_no_thinking(loaded):
    pair = loaded("olmo3-7b-rl-zero")
    base, thinking = prompts(pair)
    assert base.startswith("Answer the following question:") and thinking.endswith('begins with "Answer:"')
    assert not pair.think_tags.opened_by(thinking)


def test_tina_is_its_base_with_the_adapter_switched_on(loaded):
    pair, problems = loaded("tina-1.5b"), load_problems("story")
    asked = problems.take("test", 2)
    base, thinking = (generate_traces(each, problems, asked, max_new_tokens=12) for each in (pair.base, pair.thinking))
    assert pair.base.prompt_text(QUESTION) == pair.thinking.prompt_text(QUESTION)
    assert [trace.tokens for trace in base] != [trace.tokens for trace in thinking]


@pytest.mark.parametrize("name", KINDS)
def test_a_run_goes_from_a_published_pair_to_a_report(root, words, tmp_path, name):
    pair = tiny_pair(find_pair(name), root, words)
    facts = pair.published
    assert facts is not None
    # Four blocks instead of the real number.
    small = replace(facts, site="resid_post.2", size=2, steering_layer=1) if facts.site else facts
    (tmp_path / "pair.yaml").write_text(yaml.safe_dump(to_dict(replace(pair, published=small)), allow_unicode=True))
    settings = {
        "pair": str(tmp_path / "pair.yaml"),
        "problems": "story",
        "device": "cpu",
        "dtype": "float32",
        "sizes": {"train": 8, "validation": 4, "test": 2},
        "decoding": {"max_new_tokens": 20},
        "taxonomy": {"sizes": [2], "k": 1, "steps": 5, "seeds": [0, 1]},
        "steering": {"steps": 2, "seeds": [0, 1]},
        "hybrid": {"arms": []},
        "shown": 2,
        "look": 0,
    }
    config = RunConfig.of_recipe("v2-published", **settings)
    found = run(config, tmp_path / "run")
    assert found["arms"].keys() == {"base", "thinking", "hybrid"}
    assert all(arm["n"] == 2 for arm in found["arms"].values())
    assert (tmp_path / "run" / "report.html").exists()
    if facts.site:
        assert found["taxonomy"]["site"] == "resid_post.2"
    assert from_dict(RunConfig, json.loads((tmp_path / "run" / "config.json").read_text())) == config

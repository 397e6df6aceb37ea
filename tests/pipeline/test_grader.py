"""The grader as a setting: of the pair, of the settings, of the command line; and as a part of a run's key."""

import json

import pytest
from typer.testing import CliRunner

from probe.cli import app
from probe.config import from_dict, to_dict
from probe.errors import ProbeError
from probe.models import ModelConfig, PairConfig, find_pair
from probe.pipeline import DiscoverConfig, RunConfig
from probe.pipeline.run.inputs import chosen_problems

HALF = {"question": "Half of one?", "answer": "1/2", "split": "test"}
ONE = {"test": 1}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "halves.jsonl"
    path.write_text(json.dumps(HALF))
    return path


def test_the_grader_of_the_settings_wins_over_that_of_the_pair_and_both_over_the_file(file):
    model = ModelConfig("bundled:tiny-base")
    pair = PairConfig("mine", model, model, problems=str(file), grader="math-verify")
    other = PairConfig("mine", model, model, problems="story", grader="exact")

    def chosen(problems, grader, pair):
        return chosen_problems(problems, grader, pair, ONE).problem_set

    assert chosen(None, None, pair).grader == "math-verify"
    assert chosen(None, "numeric", pair).grader == "numeric"
    assert chosen(str(file), None, other).grader == "numeric", "the pair's is for the pair's own problems"
    kinds = {chosen(None, grader, pair).hash for grader in (None, "exact", "numeric")}
    assert len(kinds) == 3, "a run with another grader is another run"


def test_the_grader_is_a_key_of_yaml_and_leaves_older_settings_as_they_were(tmp_path):
    written = find_pair("tiny-rl")
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nbase: {path: ./b}\nthinking: {path: ./t}\nproblems: p.jsonl\ngrader: numeric\n"
    )
    assert find_pair(tmp_path / "mine.yaml").grader == "numeric"
    for config in (written, RunConfig(pair="tiny-rl"), DiscoverConfig(pair="tiny-rl")):
        assert "grader" not in to_dict(config)
    for cls in (RunConfig, DiscoverConfig):
        config = from_dict(cls, {"pair": "tiny-rl", "grader": "exact"})
        assert from_dict(cls, to_dict(config)).grader == "exact"
    with pytest.raises(ProbeError, match="unknown grader 'exakt'"):
        chosen_problems(None, "exakt", written, ONE)


@pytest.mark.parametrize("command", ["run", "discover"])
def test_known_answers_that_the_grader_cannot_read_are_named_before_anything_runs(command, tmp_path):
    path = tmp_path / "words.jsonl"
    records = [{"question": f"{i}?", "answer": "B" if i in (3, 5) else i, "id": f"q{i}"} for i in range(40)]
    path.write_text("\n".join(map(json.dumps, records)))
    options = ["--pair", "tiny-rl", "--problems", str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    done = CliRunner().invoke(app, [command, *options, "--grader", "numeric"])
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()
    assert "'numeric' cannot read 2 of 40 known answers of" in done.stderr
    assert "line 4, id 'q3': 'B'" in done.stderr and "line 6, id 'q5': 'B'" in done.stderr

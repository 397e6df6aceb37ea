"""Commands on the problems that users have: too few, one split, without answers; and limits from the command line."""

import json

import pytest
from typer.testing import CliRunner

from probe.cli import app
from probe.config import from_dict, to_dict
from probe.pipeline import DiscoverConfig, RunConfig, plan
from probe.problems import SPLITS, load_problems


def questions(path, n, **more):
    """Stories in a file, with what ``more`` adds to each record."""
    story = load_problems("story")
    some = [each for split in SPLITS for each in story.take(split, n // 3)]
    path.write_text("\n".join(json.dumps({"question": each.question, **more}) for each in some))
    return path


def test_a_limit_lowers_every_size_and_changes_no_key_of_another_run():
    limited = from_dict(RunConfig, {"pair": "tiny-rl", "sizes": {"test": 5, "limit": 8}}).sizes
    assert (limited.train, limited.validation, limited.test) == (8, 8, 5)
    assert to_dict(RunConfig(pair="tiny-rl"))["sizes"] == {"train": 400, "validation": 120, "test": 300}
    assert from_dict(DiscoverConfig, {"pair": "tiny-rl", "sizes": {"limit": 8}}).sizes.validation == 8
    whole, less = (plan(from_dict(RunConfig, {"pair": "tiny-rl", **more})) for more in ({}, {"sizes": {"limit": 8}}))
    assert less.seconds[1] < whole.seconds[1], "the plan is about as many problems"


def test_a_run_without_answers_is_refused_in_one_line_before_anything_runs(tmp_path):
    out = tmp_path / "out"
    path = questions(tmp_path / "mine.jsonl", 30)
    done = CliRunner().invoke(app, ["run", "--pair", "tiny-rl", "--problems", str(path), "--out", str(out)])
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and not out.exists()
    assert "validation problems of mine has a known answer" in done.stderr and "probe discover" in done.stderr


def test_a_curve_longer_than_what_is_there_is_refused_in_one_line(tmp_path):
    path = questions(tmp_path / "mine.jsonl", 30, answer=1)
    options = ["--pair", "tiny-rl", "--problems", str(path), "--out", str(tmp_path / "out"), "--curve", "5,300"]
    done = CliRunner().invoke(app, ["run", *options])
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert "curve has 300 traces, but there are" in done.stderr


@pytest.mark.slow
def test_behaviours_are_found_in_one_split_without_answers(tmp_path):
    path = questions(tmp_path / "mine.jsonl", 60, split="test")
    small = {
        "taxonomy": {"sites": ["resid_post.2"], "sizes": [4], "seeds": [0, 1], "steps": 20, "rivals": []},
        "falsify": {"sentences": 2, "prefixes": 1, "samples": 1, "new_tokens": 8},
    }
    (tmp_path / "small.yaml").write_text(json.dumps(small))  # JSON is YAML
    options = ["--pair", "tiny-rl", "--problems", str(path), "--config", str(tmp_path / "small.yaml")]
    command = ["discover", *options, "--limit", "15", "--max-new-tokens", "60", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    assert "note: mine: has only test problems, split 50/20/30 by a hash of the question" in done.stderr
    assert "train problems of mine have no known answer" in done.stderr
    found = json.loads((tmp_path / "out" / "discover.json").read_text())["problems"]
    assert found["train"] == 15 and 0 < found["validation"] <= 15 and found["accuracy"] is None
    assert "60 of 60 problems without a known answer" in (tmp_path / "out" / "report.html").read_text()
    assert CliRunner().invoke(app, command).exit_code == 0, "the same command again"

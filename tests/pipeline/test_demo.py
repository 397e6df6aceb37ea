"""The run that ships with probe: it opens without models, nothing is written into it, and it is small."""

import re
import shutil
from pathlib import Path

import pytest

import probe
from probe.config import from_dict, read_yaml, to_dict
from probe.pipeline.run.config import SizesConfig
from probe.pipeline.run.experiment import Experiment

FOLDER = Path(__file__).parents[2] / "artifacts" / "demo"


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """The size and the time of each file and folder; a lock that came and went changes the time of its folder."""
    found = {str(each): each.stat() for each in (folder, *folder.rglob("*"))}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


def test_everything_is_read_and_shown_without_a_model(monkeypatch):
    monkeypatch.setattr(Experiment, "open", lambda *_, **__: pytest.fail("the models were loaded"))
    before, run = state(FOLDER), probe.demo()
    assert run.folder == FOLDER / "run"
    for shown, said in (
        (run, "16 test problems of story"),
        (run.arms, "oracle-free"),
        (run.traces, "thinking"),
        (run.traces.base, "tiny-base"),
        (run.traces.train[0], "story/train/0"),
        (run.taxonomy, "variance explained"),
        (run.arms["thinking"], "thinking"),
        (run.circuits["check"], "block 3"),
        (run.problems, "story"),
    ):
        assert said in shown._repr_html_(), shown
    assert [len(getattr(run.traces, name)) for name in ("train", "validation", "base", "thinking")] == [32, 16, 16, 16]
    assert len(run.behaviours) == run.taxonomy.n_behaviours == run.vectors.seeds[0].vectors.shape[0]
    assert run.policy is not None
    assert state(FOLDER) == before


def test_arms_answer_and_nothing_is_written():
    before, run = state(FOLDER), probe.demo()
    for name, result in run.arms.items():
        assert sum(result.correct) / 16 == pytest.approx(run.results["arms"][name]["accuracy"])
        assert name in result._repr_html_()
    (problem,) = run.problems.take("test", 1)
    for arm in ("hybrid", "oracle-free", "random-vectors"):
        answer = run.ask(problem.question, arm=arm)
        assert answer.text == run.arms[arm].texts[0], arm
        assert f"{sum(answer.trace.steered)} of {len(answer.trace.tokens)} tokens steered" in answer._repr_html_()
    assert state(FOLDER) == before


def test_the_settings_beside_it_are_those_of_the_run():
    run, settings = probe.demo(), read_yaml(FOLDER / "config.yaml")
    config = from_dict(probe.RunConfig, settings)
    assert to_dict(run.config) == to_dict(config)
    assert config.sizes == SizesConfig(**settings["sizes"])
    assert run.circuits["check"].about["method"] == probe.CircuitConfig(**read_yaml(FOLDER / "circuit.yaml")).method


def test_a_copy_is_a_run_like_any_other(tmp_path):
    copy = shutil.copytree(FOLDER / "run", tmp_path / "run")
    report = probe.write_report(copy)
    assert "oracle-free" in Path(report).read_text(encoding="utf-8")
    assert probe.open_run(copy).report.is_file()


def test_it_is_small_and_says_nothing_of_the_machine():
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 2_000_000
    assert not [file for file in files if re.search(rb"[\"' (]/(home|root|tmp|work|Users)/", file.read_bytes())]
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "python -m benchmarks.demo_run" in card and "apache-2.0" in card

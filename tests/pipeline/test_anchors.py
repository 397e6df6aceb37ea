"""``probe anchors`` on the bundled pair: all measures, interrupted and resumed, from a server, and without a model."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from serving import served
from typer.testing import CliRunner

import probe
from probe.anchors import roll_out
from probe.cli import app
from probe.errors import ProbeError
from probe.models import Sampling
from probe.pipeline import AnchorsConfig, find_anchors
from probe.problems.story.story import draw_story
from probe.servers import ServersConfig
from probe.traces import open_servers

MEASURED = {"samples": 3, "chains": 2, "export": True, "device": "cpu", "patterns": (r"\d = \d",)}
ALL = ("counterfactual", "resilience", "forced", "critical")


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> str:
    """A file with one problem that takes few sentences."""
    story = draw_story(random.Random(3), 2)
    file = tmp_path_factory.mktemp("short") / "short.jsonl"
    row = {"id": "short", "question": story.question(), "answer": str(story.answer), "split": "test"}
    file.write_text(json.dumps(row) + "\n")
    return str(file)


@pytest.fixture(scope="module")
def done(short, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("anchors") / "whole"
    told = ["--samples", "3", "--chains", "2", "--measure", ",".join(ALL), "--export", "--sentence", r"\d = \d"]
    told += ["--pair", "tiny-rl", "--problems", short, "--device", "cpu", "--out", str(out)]
    found = CliRunner().invoke(app, ["anchors", *told])
    assert found.exit_code == 0, found.output
    assert "all sentences" in found.output and "new tokens were run" in found.output
    return out, json.loads((out / "results.json").read_text())


def test_every_sentence_has_its_figures_and_the_page_shows_them(done):
    out, results = done
    (trace,) = results["traces"]
    *measured, last = trace["sentences"]
    assert set(last) == {"text"} and all({"importance", "shift", "q", "resilience"} <= set(each) for each in measured)
    assert trace["forced"]["after"][-1] == len(trace["forced"]["answers"]) - 1 and trace["forced"]["accuracy"][-1] == 1
    assert trace["critical"]["places"][0] == 0 and trace["critical"]["places"][-1] == trace["tokens"]
    everything, equations = results["behaviours"]
    assert everything["sentences"] == len(trace["sentences"]) > equations["sentences"] > 0
    assert equations["importance"]["ci"] is None, "there is one problem"
    page = (out / "report.html").read_text()
    assert "figure-sentences-0" in page and "Table of all sentences" in page
    assert "http://" not in page.partition("<body>")[2]


def test_interrupted_and_resumed_is_never_interrupted(done, short, tmp_path):
    out, results = done
    again = tmp_path / "again"
    shutil.copytree(out, again)
    lost = [each for each in sorted((again / "rollouts").rglob("*.json"))[::2]]
    for file in (*lost, again / "results.json", again / "report.html"):
        file.unlink()
    config = AnchorsConfig(pair="tiny-rl", problems=short, measure=ALL, **MEASURED)
    assert len(lost) > 8 and find_anchors(config, again) == results
    assert files(again) == files(out)
    with pytest.raises(ProbeError, match="samples"):
        find_anchors(replace(config, samples=4), again)


def test_exported_rollouts_give_the_same_anchors_without_a_model(done, tmp_path):
    out, results = done
    config = AnchorsConfig(rollouts=str(out / "math-rollouts"), grader="numeric")
    (ours,), (theirs,) = results["traces"], find_anchors(config, tmp_path / "out")["traces"]
    for one, other in zip(ours["sentences"], theirs["sentences"], strict=True):
        assert {name: value for name, value in one.items() if name != "resilience"} == other


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no model given; name one of --pair"),
        ({"pair": "tiny-rl", "rollouts": "x"}, "--pair and --rollouts given"),
        ({"rollouts": "x", "measure": ("forced",)}, "counterfactual alone"),
        ({"pair": "tiny-rl", "measure": ("resiliense",)}, "did you mean 'resilience'"),
        ({"pair": "tiny-rl", "sampling": Sampling()}, "greedy rollouts are all equal"),
        ({"pair": "tiny-rl", "samples": 1}, "samples is 1"),
        ({"pair": "tiny-rl", "problem": "none", "device": "cpu"}, "story has no problem with the id 'none'"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, given, said):
    with pytest.raises(ProbeError, match=said):
        find_anchors(AnchorsConfig(**given), tmp_path / "out")
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_server_continues_the_tokens_of_a_trace(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    model, problems = probe.load_pair("tiny-rl", device="cpu").thinking, probe.load_problems("story")
    (problem,) = problems.take("test", 1)
    (trace,) = probe.generate_traces(model, problems, [problem], max_new_tokens=60)
    how = {"places": [20, 40], "n_samples": 2, "max_new_tokens": 8, "sampling": Sampling()}
    with served(model) as server:
        quick = ServersConfig(concurrency=2, timeout=20, patience=0.5)
        servers = open_servers([server.url], model, [problem], max_new_tokens=8, config=quick)
        before = len(server.requests)
        found = roll_out(model, problems, problem, trace, **how, servers=servers)
        sent = [each["prompt"] for each in server.requests[before:]]
    assert found == roll_out(model, problems, problem, trace, **how)
    prompt = model.prompt_ids(problem.question)
    assert sorted(sent) == sorted([*prompt, *trace.tokens[:n]] for n in (20, 40) for _ in range(2))

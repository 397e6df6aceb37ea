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
from probe.models import ModelConfig, Sampling
from probe.pipeline import AnchorsConfig, find_anchors
from probe.pipeline.anchors import anchors
from probe.pipeline.anchors.inputs import check_room, prepare_anchors
from probe.problems.story.story import draw_story
from probe.reports.anchors import page
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
    counts = trace["counts"]
    assert counts == results["counts"] and counts["rollouts"] == 3 * len(trace["sentences"])
    assert counts["chains"] == 2 * len(measured) and counts["chains given up as too long"] == 0
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
    # A measure that is asked for alone joins those that are there.
    assert anchors.measured(again, ["forced"]) == ALL and anchors.measured(tmp_path, ["forced"]) == ("forced",)
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
        ({"pair": "tiny-rl", "patterns": ("(",)}, "regular expression"),
        ({"rollouts": "x", "run": "y"}, "--rollouts and --run exclude each other"),
        ({"rollouts": "x", "thinking_url": ("http://a/v1",)}, "--thinking-url has no effect with --rollouts"),
        ({"rollouts": "x", "sampling": Sampling(0.6)}, "--temperature, --top-p, --top-k, --min-p.* no effect"),
        ({"thinking": ModelConfig("bundled:tiny-rl"), "model": "base"}, "--model has no effect with --thinking"),
        ({"pair": "tiny-rl", "traces": "x", "problems": "story"}, "--problems has no effect with --traces"),
        ({"pair": "tiny-rl", "problem": "p", "limit": 3}, "--limit has no effect with --problem"),
        ({"pair": "tiny-rl", "every": 2}, "--every has no effect without --measure forced"),
        ({"pair": "tiny-rl", "chains": 2}, "--chains has no effect without --measure resilience"),
        ({"pair": "tiny-rl", "measure": ("forced",), "export": True}, "--export has no effect"),
        ({"pair": "tiny-rl", "measure": ("resilience",), "samples": 9}, "--samples has no effect"),
        ({"pair": "tiny-rl", "servers": ServersConfig(timeout=9)}, "the section servers has no effect"),
        ({"pair": "tiny-rl", "behaviours": ("chekc",), "device": "cpu"}, "did you mean 'check'"),
        ({"pair": "tiny-rl", "problem": "none", "device": "cpu"}, "story has no problem with the id 'none'"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, given, said):
    with pytest.raises(ProbeError, match=said):
        find_anchors(AnchorsConfig(**given), tmp_path / "out")
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_run_without_a_taxonomy_is_refused_before_a_model_is_loaded(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ProbeError, match="holds no taxonomy"):
        AnchorsConfig(pair="tiny-rl", run=str(tmp_path)).check()


def test_the_usual_limit_leaves_room_for_the_prompt(tiny_folder):
    """A prompt, a trace and a rollout from its end fit."""
    config = ModelConfig(str(tiny_folder("gpt2")), prompt="{question}")
    inputs = prepare_anchors(AnchorsConfig(thinking=config, problems="story", device="cpu"))
    positions = inputs.model.hf.config.max_position_embeddings
    prompt = len(inputs.model.prompt_ids(inputs.problems[0].question))
    assert prompt > 2 and inputs.limit == (positions - prompt) // 2


def test_a_trace_that_does_not_fit_the_context_of_the_servers_is_refused():
    inputs = prepare_anchors(AnchorsConfig(pair="tiny-rl", max_new_tokens=30, device="cpu"))
    traces = probe.generate_traces(inputs.model, inputs.problem_set, inputs.problems, max_new_tokens=20)
    needed = len(inputs.model.prompt_ids(inputs.problems[0].question)) + len(traces[0].tokens) + 30
    for enough in (None, needed):
        check_room(inputs, traces, enough)
    with pytest.raises(ProbeError, match=f"the servers have a context of {needed - 1}"):
        check_room(inputs, traces, needed - 1)


def test_of_many_sets_few_are_shown_and_all_are_averaged(done, tmp_path, monkeypatch):
    """One set of rollouts is held at a time."""
    out, _ = done
    (one,) = (out / "math-rollouts").rglob("problem_0")
    for number in range(5):
        there = shutil.copytree(one, tmp_path / "many" / f"problem_{number}")
        about = json.loads((there / "problem.json").read_text())
        (there / "problem.json").write_text(json.dumps(about | {"problem_id": f"p-{number}"}))
    monkeypatch.setattr(anchors, "_SHOWN", 3)
    monkeypatch.setattr(anchors, "_READ", 2)
    monkeypatch.setattr(page, "_TRACES", 2)
    config = AnchorsConfig(rollouts=str(tmp_path / "many"), grader="numeric", limit=9)
    found = find_anchors(config, tmp_path / "out")
    assert (found["n_traces"], len(found["traces"]), found["problems"]["n"]) == (5, 3, 5)
    rows = [json.loads(file.read_text()) for file in sorted((tmp_path / "out/sentences").iterdir())]
    assert rows[:3] == found["traces"] and [row["problem"] for row in rows] == [f"p-{i}" for i in range(5)]
    everything = found["behaviours"][0]
    assert everything["sentences"] == found["sentences"]["n"] == sum(len(row["sentences"]) for row in rows)
    values = [[s["shift"]["value"] for s in row["sentences"] if "shift" in s] for row in rows]
    known = [value for some in values for value in some if value is not None]
    assert everything["shift"]["value"] == pytest.approx(sum(known) / len(known))
    text = (tmp_path / "out/report.html").read_text()
    assert "The first 2 of 5 traces" in text and "trace-1" in text and "trace-2" not in text
    solutions = tmp_path / "many/problem_1/chunk_0/solutions.json"
    solutions.write_text(solutions.read_text().replace("chunk_removed", "chunk_taken"))
    with pytest.raises(ProbeError, match="rollouts"):
        find_anchors(config, tmp_path / "out")


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

"""A look at real pairs: the bundled ones pass, and what is wrong is named where they are asked wrongly; and a run's."""

import io
import json
from dataclasses import replace
from importlib import import_module

import pytest
from typer.testing import CliRunner

from probe.cli import app
from probe.config import from_dict
from probe.errors import ProbeError
from probe.models import find_pair
from probe.pipeline import RunConfig, add_arms, look, run
from probe.reports import look_tables

SMALL = {
    "device": "cpu",
    "look": 12,
    "shown": 1,
    "sizes": {"train": 6, "validation": 12, "test": 2},
    "taxonomy": {"sites": ["resid_post.2"], "sizes": [2], "k": 1, "steps": 5, "seeds": [0], "rivals": []},
    "steering": {"steps": 2, "seeds": [0]},
    "policy": {"steps": 2},
    "hybrid": {"arms": ["hybrid"]},
}
RL = find_pair("tiny-rl")


def names(found) -> list[tuple[str, str | None, bool]]:
    return [(each["name"], each["model"], each["stops"]) for each in found["verdicts"]]


def looked(**settings):
    return look(from_dict(RunConfig, SMALL | settings))


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["tiny-rl", "tiny-sft"])
def test_bundled_pairs_stop_at_nothing(pair):
    found = looked(pair=pair)
    # On problems that tiny-sft learned to solve, its base model goes round: "Let us take the story step by step."
    assert set(names(found)) <= {("some cut", "base", False)}
    assert found["models"]["thinking"]["accuracy"] > 0.8 > 0.3 > found["models"]["base"]["accuracy"]
    assert found["difference"]["ci"][0] > 0 and found["problems"]["n"] == 12
    assert [each["thinking"]["answer"] for each in found["shown"][:2]] == [
        each["answer"] for each in found["shown"][:2]
    ]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def member(model) -> dict[str, str]:
    return {"path": model.path, "prompt": model.prompt}


SHORT = {"pair": "tiny-rl", "decoding": {"max_new_tokens": 3}}
TAGGED = {**member(RL.thinking), "think_close": "</done>", "think_open": "<think>"}
OWN = {"base": member(RL.base), "thinking": member(RL.thinking), "problems": "story"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"base": OWN["thinking"], "thinking": OWN["base"]}, [("worse", None, True)]),
        ({"base": OWN["thinking"]}, [("same texts", None, True)]),
        ({"base": TAGGED, "thinking": TAGGED},
         [("not closed", "base", True), ("not closed", "thinking", True)]),
        ({"thinking": {**OWN["thinking"], "prompt": "{question} 7 7 7 7 7 7"}}, None),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_real_pair(settings, wanted):
    found = looked(**OWN | settings)
    if wanted is None:
        assert any(stops for _, _, stops in names(found))
    else:
        assert names(found)[: len(wanted)] == wanted


@pytest.mark.slow
def test_answers_in_another_form(tmp_path):
    from probe.problems import load_problems

    story = load_problems("story")
    rows = [
        {"id": each.id, "split": split, "question": each.question, "answer": f"{each.answer} of them"}
        for split in ("train", "validation", "test")
        for each in story.take(split, 12)
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = looked(pair="tiny-rl", problems=str(tmp_path / "p.jsonl"), grader="exact")
    assert ("other form", "thinking", True) in names(found)


def test_it_is_kept_and_resumed(tmp_path, monkeypatch):
    found = look(from_dict(RunConfig, SMALL | SHORT), tmp_path / "look")
    assert names(found)[:2] == [("all cut", "base", True), ("all cut", "thinking", True)]
    assert json.loads((tmp_path / "look" / "look.json").read_text())["verdicts"] == found["verdicts"]
    monkeypatch.setattr("probe.hooks.decoding.runner.Runner.prefill", lambda _: pytest.fail("a model ran"))
    again = look(from_dict(RunConfig, SMALL | SHORT), tmp_path / "look")
    assert again == found
    with pytest.raises(ProbeError, match="at least one problem"):
        looked(**SHORT, look=0)


def test_the_command_shows_it_and_says_whether_a_run_would_stop(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(SMALL | {"pair": "tiny-rl"}))
    done = CliRunner().invoke(app, ["look", "--config", str(file), "--look", "3"], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    assert "a look at 3 validation problems of story" in done.stdout
    assert "✓ 87" in done.stdout and "sampling   base greedy" in done.stdout
    file.write_text(json.dumps(SMALL | SHORT))
    done = CliRunner().invoke(app, ["look", "--config", str(file), "--json"])
    assert done.exit_code == 1 and json.loads(done.stdout)["verdicts"][0]["name"] == "all cut"
    assert done.stderr.splitlines()[-1].startswith("probe: 12 of 12 answers of the base model reached 3 tokens")


@pytest.mark.slow
def test_a_run_stops_goes_on_anyway_and_looks_once(tmp_path, monkeypatch):
    out, short = tmp_path / "run", {"decoding": {"max_new_tokens": 3}}
    config = from_dict(RunConfig, SMALL | {"pair": "tiny-rl"} | short)
    with pytest.raises(ProbeError, match=r"reached 3 tokens.*--max-new-tokens 6; or continue with --anyway"):
        run(config, out)
    kept = (out / "look" / "look.json").read_text()
    assert not (out / "traces").exists()
    with monkeypatch.context() as patched:  # the same again stops at once
        patched.setattr("probe.hooks.decoding.runner.Runner.prefill", lambda _: pytest.fail("a model ran"))
        with pytest.raises(ProbeError, match="reached 3 tokens"):
            run(config, out)
    # What was corrected begins in the same folder.
    config = from_dict(RunConfig, SMALL | {"pair": "tiny-rl", "decoding": {"max_new_tokens": 60}})
    with pytest.raises(ProbeError, match=r"reached 60 tokens"):
        run(config, out)
    assert (out / "look" / "look.json").read_text() != kept
    found = run(replace(config, anyway=True), out)
    assert found["look"]["verdicts"][0]["name"] == "all cut" and found["look"]["max_new_tokens"] == 60
    assert "the limit of 60 tokens cut" in found["cut"]
    page = (out / "report.html").read_text()
    assert '<section id="look">' in page and "The limit of 60 tokens cut" in page
    # A finished run looks at nothing and is stopped by nothing; settings of the look are no part of its key.
    looking = import_module("probe.pipeline.look.look")
    monkeypatch.setattr(looking, "roll_out_splits", lambda *_, **__: pytest.fail("looked twice"))
    assert run(replace(config, look=3), out)["look"] == found["look"]
    assert "force-token" in add_arms(out, ["force-token"])["arms"]


def test_tables_show_text_as_it_is():
    from rich.console import Console

    found = looked(**SHORT, look=1)
    found["shown"][0]["answer"] = "[bold]x[/bold] " * 9
    console = Console(width=80, record=True, file=io.StringIO())
    for table in look_tables(found):
        console.print(table)
    assert "[bold]x[/bold] [bold]x[" in console.export_text()

"""``probe diff`` on the bundled pair, from traces to the page, with a series, and its refusals."""

import json
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from probe.cli import app
from probe.config import from_dict
from probe.diff import texts
from probe.errors import ProbeError
from probe.models import bundled_folder, find_pair
from probe.pipeline import DiffConfig, diff
from probe.pipeline.diff.folder import Kept, joined
from probe.problems import load_problems
from probe.reports import diff_table, difference_figure, latents_figure, series_figure, shift_figure, transfer_figure

SMALL = {
    "parts": ["tokens", "heads", "truth", "latents", "difference"],
    "train": 10,
    "n_pairs": 8,
    "test": 2,
    "draws": 1,
    "heads": 1,
    "factors": [0.5],
    "device": "cpu",
}


@pytest.mark.slow
@pytest.mark.long
def test_from_texts_to_the_page(tmp_path, kill):
    config, out = tmp_path / "diff.yaml", tmp_path / "out"
    config.write_text(json.dumps(SMALL))
    series = [f"{way}={bundled_folder('tiny-series') / way}" for way in ("rl", "rl")]
    told = [word for each in series for word in ("--series", each)]
    done = CliRunner().invoke(
        app,
        ["diff", "--pair", "tiny-rl", "--behaviour", "check", "--config", str(config), "--out", str(out), *told],
    )
    assert done.exit_code == 0, done.output
    first = (out / "results.json").read_bytes()
    results = json.loads((out / "results.json").read_text())
    assert {each["part"] for each in results["findings"]} == set(SMALL["parts"]) and not results["missing"]
    assert [run["name"] for run in results["series"]] == ["rl", "rl"]
    assert results["series"][0]["steps"] == [0, 15, 30, 60] and results["series"][0]["curve"] is None
    twice = next(each for each in results["agreement"] if each["runs"] == ["rl", "rl"])
    assert twice["value"] == pytest.approx(1), "a run named twice agrees with itself"
    assert results["chance"][0]["runs"] == 2
    page = (out / "report.html").read_text()
    assert "Step by step" in page and "One SAE over both" in page and 'src="http' not in page
    assert shift_figure(results["heads"]).data and len(series_figure(results["series"]).data) >= 3
    assert latents_figure(results["latents"]).data and transfer_figure(results["truth"], "truth").data
    assert diff_table(results).row_count >= len(results["findings"])
    assert "What the mean difference says" in page and difference_figure(results["difference"]).data
    # What a killed comparison had not finished is made again, and nothing else.
    kept = out / "parts" / "heads" / "result.json"
    before = kept.stat().st_mtime_ns
    for each in (out / "parts" / "truth", *out.glob("series/rl/30-*")):
        shutil.rmtree(each)
    (out / "results.json").unlink()
    config = from_dict(DiffConfig, SMALL | {"pair": "tiny-rl", "behaviour": "check", "series": series})
    diff(config, out)
    assert (out / "results.json").read_bytes() == first and kept.stat().st_mtime_ns == before
    # Killed between two changes of heads. So few texts let no head grow, so one is planted.
    told = json.loads(kept.read_text())
    told["heads"]["grown"] = [[0, 0], [1, 1]]
    kept.write_text(json.dumps(told))
    whole = diff(config, out)
    assert whole["effects"]["heads"] == ["a0.h0"] and whole["effects"]["ways"].keys() == {"resample", "0.5"}
    first = (out / "results.json").read_bytes()
    shutil.rmtree(out / "effects")
    (out / "results.json").unlink()
    kill(diff, config, out, "effects/1/resample/result.json")
    assert "effects" not in json.loads((out / "results.json").read_text()), "parts that are finished are shown"
    assert not (out / "effects" / "1" / "0.5" / "manifest.json").exists()
    diff(config, out)
    assert (out / "results.json").read_bytes() == first
    # A part and another head are added; the series stays.
    more = {"pair": "tiny-rl", "behaviour": "check", "parts": ["heads", "massive"], "heads": 2}
    found = diff(from_dict(DiffConfig, SMALL | more), out)
    assert found["series"] == whole["series"] and len(found["findings"]) == len(whole["findings"]) + 1
    assert found["effects"]["heads"] == ["a0.h0", "a1.h1"] and (out / "effects" / "1" / "0.5").is_dir()


def test_any_two_models_and_problems_are_compared_and_an_interrupted_comparison_resumes(tmp_path, monkeypatch):
    """No pair is named, the problems have no sentence types, and the second part is interrupted."""
    own = [find_pair("tiny-rl").base, find_pair("tiny-rl").thinking]
    base, thinking = ({"path": each.path, "prompt": each.prompt} for each in own)
    file = tmp_path / "mine.jsonl"
    records = [{"question": each.question, "answer": each.answer} for each in load_problems("story").take("train", 6)]
    file.write_text("".join(f"{json.dumps(each | {'split': 'train'})}\n" for each in records))
    settings = {"base": base, "thinking": thinking, "problems": str(file), "sentence": "Check|Is", "device": "cpu"}
    parts = ["massive", "neurons", "tokens"]
    config = from_dict(DiffConfig, settings | {"parts": parts, "max_new_tokens": 150, "train": 4})
    whole = diff(config, tmp_path / "whole")
    assert whole["behaviour"] == "Check|Is" and {each["part"] for each in whole["findings"]} == set(parts)
    made = Kept.result

    def interrupted(kept, name, *more):
        if name == "parts/neurons":
            raise KeyboardInterrupt
        return made(kept, name, *more)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Kept, "result", interrupted)
        diff(config, tmp_path / "killed")
    assert not (tmp_path / "killed" / "results.json").exists()
    diff(config, tmp_path / "killed")
    first, second = ((tmp_path / name / "results.json").read_bytes() for name in ("whole", "killed"))
    assert first == second
    with pytest.raises(ProbeError, match=r"for 'Check\|Is', and this command for 'Is'"):
        diff(replace(config, sentence="Is"), tmp_path / "killed")
    assert (tmp_path / "killed" / "results.json").read_bytes() == first


TWO = {"pair": "tiny-rl", "train": 4, "n_pairs": 8, "max_new_tokens": 120, "heads": 0, "device": "cpu"}


def test_parts_are_added_to_a_finished_folder(tmp_path, monkeypatch):
    """In whatever order, and whether a behaviour is named or chosen: the results are those of one command."""
    read, make = [], texts.activation_difference
    monkeypatch.setattr(texts, "activation_difference", lambda *some, **more: read.append(1) or make(*some, **more))
    steps = (
        {"parts": ["neurons"]},
        {"parts": ["difference"]},
        {"parts": ["massive"], "behaviour": "check"},
        {"parts": ["massive", "steering"]},
    )
    for more in steps:
        added = diff(from_dict(DiffConfig, TWO | more), tmp_path / "steps")
    assert [each["part"] for each in added["findings"]] == ["neurons", "difference", "steering", "massive"]
    assert added["behaviour"] == "check" and "rose most" in added["chosen"] and added["difference"]["word"]
    once = from_dict(DiffConfig, TWO | {"parts": ["massive", "neurons", "steering", "difference"]})
    assert len(read) == 2
    assert diff(once, tmp_path / "once") == added and len(read) == 3, "one command computes the difference once"
    first, second = ((tmp_path / name / "results.json").read_bytes() for name in ("steps", "once"))
    assert first == second
    assert diff(from_dict(DiffConfig, TWO | {"parts": ["neurons"]}), tmp_path / "steps") == added


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"sentence": "Zebra"}, "no sentence of these 4 traces shows 'Zebra'"),
        (
            {"series": [f"rl={bundled_folder('tiny-series') / 'rl'}"]},
            "series are compared for one behaviour: fewer than",
        ),
    ],
)
def test_a_behaviour_that_no_sentence_shows_is_refused_before_the_parts(more, said, tmp_path):
    file = tmp_path / "mine.jsonl"  # no sentence types, and answers too short for habits
    records = [{"question": each.question, "answer": each.answer} for each in load_problems("story").take("train", 4)]
    file.write_text("".join(f"{json.dumps(each | {'split': 'train'})}\n" for each in records))
    settings = TWO | {"problems": str(file), "max_new_tokens": 20, "parts": ["heads", "knowledge"]}
    with pytest.raises(ProbeError, match=said):
        diff(from_dict(DiffConfig, settings | more), tmp_path / "out")
    assert not (tmp_path / "out" / "parts").exists()


def test_a_part_that_is_missing_and_one_that_was_replace_each_other():
    old = {"findings": [{"part": "heads", "said": "old"}], "missing": {"truth": "none"}, "heads": 1, "series": 2}
    new = {"findings": [{"part": "truth", "said": "new"}], "missing": {"heads": "few"}, "truth": 3, "problems": {}}
    found = joined(old, new)
    assert found["findings"] == [{"part": "truth", "said": "new"}] and found["missing"] == {"heads": "few"}
    assert (found["truth"], found["series"]) == (3, 2) and "heads" not in found


def test_two_models_of_the_same_weights_are_refused(tmp_path):
    one = find_pair("tiny-rl").thinking
    member = {"path": one.path, "prompt": one.prompt}
    settings = TWO | {"pair": None, "base": member, "thinking": member, "problems": "story"}
    with pytest.raises(ProbeError, match="have the same weights"):
        diff(from_dict(DiffConfig, settings), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_series_or_an_sae_of_another_model_is_refused_before_the_parts(tmp_path, tiny_folder):
    settings = json.loads((tiny_folder("llama") / "config.json").read_text())
    (tmp_path / "run" / "checkpoint-5").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-5" / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 2}))
    config = from_dict(DiffConfig, TWO | {"parts": ["neurons"], "series": [f"rl={tmp_path / 'run'}"]})
    with pytest.raises(ProbeError, match=r"checkpoint-5 has \d+ layers of \d+ heads and tiny-base 4 of 4:"):
        diff(config, tmp_path / "out")
    config = from_dict(DiffConfig, TWO | {"parts": ["neurons", "dictionary"], "sae": str(tmp_path / "run")})
    with pytest.raises(ProbeError, match="holds no SAE"):
        diff(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pair": "tiny-rll"}, "tiny-rl"),
        ({"parts": ["head"]}, "did you mean 'heads'"),
        ({"series": ["runs/rl"]}, "write NAME=FOLDER"),
        ({"series": ["rl=nowhere"]}, "nowhere holds no checkpoint-STEP"),
        ({"n_pairs": 2}, "n_pairs is 2"),
        ({"pair": None}, "no models given"),
        ({"parts": ["dictionary"]}, "name one"),
        ({"sentence": "("}, "no regular expression"),
        ({"sentence": "Is", "behaviour": "check"}, "both a behaviour and a pattern"),
        ({"layer": 9, "device": "cpu"}, "layers 0 to 3"),
        ({"behaviuor": "check"}, "behaviour"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, change, said):
    with pytest.raises(ProbeError, match=said):
        diff(from_dict(DiffConfig, {"pair": "tiny-rl"} | change), tmp_path / "out")
    assert not (tmp_path / "out").exists()

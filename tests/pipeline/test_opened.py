"""A run that is opened from its folder: what needs no model is read without one, and arms are those of the run."""

import json
import shutil
import subprocess
import sys

import pytest

import probe
from probe.config import from_dict
from probe.errors import ProbeError
from probe.pipeline.run.experiment import Experiment

#: One process: what opening and the results import, and what is read where no model is.
SCRIPT = """
import json, sys
import probe
run = probe.open_run(sys.argv[1])
told = [run.results["schema"], list(run.arms), run.config.sizes.test, run.report.is_file()]
told += [repr(run), run._repr_html_()]
heavy = [name for name in ("torch", "transformers", "sklearn", "pyarrow") if name in sys.modules]
traces = [len(getattr(run.traces, name)) for name in ("train", "validation", "base", "thinking")]
read = [traces, run.taxonomy.n_behaviours, run.vectors.layer, len(run.problems)]
try:
    run.pair
except probe.ProbeError as error:
    said = str(error)
print(json.dumps([told, heavy, read, said]))
"""


@pytest.fixture(scope="module")
def kept(tiny_folder, tmp_path_factory):
    """A run whose models are in a folder of their own."""
    home = tmp_path_factory.mktemp("opened")
    for role, seed in (("base", 1), ("thinking", 2)):
        shutil.copytree(tiny_folder("llama", seed=seed), home / "models" / role)
    given = {
        "base": {"path": str(home / "models" / "base"), "prompt": "Problem: {question}\nSolution:"},
        "thinking": {"path": str(home / "models" / "thinking"), "prompt": "Question: {question}\n<think>"},
        "problems": "story",
        "device": "cpu",
        "sizes": {"train": 8, "validation": 4, "test": 5, "limit": 6},
        "decoding": {"batch_size": 4, "max_new_tokens": 12},
        "taxonomy": {"sizes": [2], "k": 1, "steps": 10, "seeds": [0]},
        "steering": {"steps": 2, "seeds": [0]},
        "policy": {"steps": 5},
        "hybrid": {"arms": ["oracle-free"]},
        "look": 0,
    }
    out = home / "run"
    return out, probe.run(from_dict(probe.RunConfig, given), out)


def test_what_needs_no_model_is_read_without_one_and_results_without_torch(kept, tmp_path):
    out, found = kept
    alone = shutil.copytree(out, tmp_path / "alone")
    config = json.loads((alone / "config.json").read_text())
    for role in ("base", "thinking"):
        config[role]["path"] = str(tmp_path / "gone" / role)
    (alone / "config.json").write_text(json.dumps(config))
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(alone)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told, heavy, read, said = json.loads(done.stdout)
    assert heavy == []
    assert told[:4] == [1, list(found["arms"]), 5, True]
    assert "arms on 5 test problems of story" in told[4] and "oracle-free" in told[5]
    assert read[0] == [6, 4, 5, 5] and read[1] == 2
    assert "gone" in said and "\n" not in said


def test_traces_and_arms_are_those_of_the_run(kept, monkeypatch):
    monkeypatch.setattr("probe.hooks.decoding.runner.Runner.prefill", lambda _: pytest.fail("a model ran"))
    out, found = kept
    run, experiment = probe.open_run(out), Experiment.open(out)
    for name, traces in vars(experiment.rollouts).items():
        assert getattr(run.traces, name) == traces
    graded = json.loads((out / "graded.json").read_text())["correct"]
    assert {"base", "thinking", "hybrid", "oracle-free"} == set(run.arms)
    for name, result in run.arms.items():
        assert result.correct == graded[name] and len(result.traces) == len(result.texts) == 5
        tokens = [len(trace.tokens) for trace in result.traces]
        assert sum(tokens) / 5 == pytest.approx(found["arms"][name]["tokens_per_answer"])
        assert result.texts == [run.pair.base.decode(trace.tokens) for trace in result.traces]
    assert run.vectors.single.layer == run.experiment.vectors.single.layer
    assert run.policy.to("cpu") is not None and run.arm("hybrid").name == "hybrid"
    with pytest.raises(ProbeError, match="has no arm 'hybird'; did you mean 'hybrid'"):
        run.arms["hybird"]


def test_the_folder_keeps_the_numbers_of_problems_that_were_taken(kept):
    out, found = kept
    config = json.loads((out / "config.json").read_text())
    assert config["sizes"] == json.loads((out / "run.json").read_text())["config"]["sizes"]
    assert config["sizes"] == {"train": 6, "validation": 4, "test": 5}
    assert [found["problems"][split] for split in ("train", "validation", "test")] == [6, 4, 5]


def test_another_folder_is_named_for_what_it_is(kept, tmp_path):
    with pytest.raises(ProbeError, match="nothing holds no run; make one with: probe run"):
        probe.open_run(tmp_path / "nothing")
    (tmp_path / "begun").mkdir()
    shutil.copyfile(kept[0] / "run.json", tmp_path / "begun" / "run.json")
    with pytest.raises(ProbeError, match=r"the stages of .*begun are not finished; run the same"):
        probe.open_run(tmp_path / "begun")
    (tmp_path / "begun" / "discover.json").write_text("{}")
    with pytest.raises(ProbeError, match=r"holds a discovery; open its taxonomy with: probe\.Taxonomy\.load\("):
        probe.open_run(tmp_path / "begun")

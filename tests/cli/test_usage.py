"""Errors of usage are named before any library that runs models is imported, in one line that says where."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from probe.cli import app

#: Each case in one process: torch is imported by none of them.
SCRIPT = """
import json, shlex, sys
from typer.testing import CliRunner
from probe.cli import app
for case in json.loads(sys.stdin.read()):
    done = CliRunner().invoke(app, shlex.split(case))
    print(json.dumps([done.exit_code, done.stderr, "torch" in sys.modules or "transformers" in sys.modules]))
"""

CASES = {
    "run --pair nosuch": "unknown pair 'nosuch'",
    "run --pair nosuch.yaml": "nosuch.yaml",
    "run": "no models given",
    "run --pair tiny-rl --problems none.jsonl": "the problem file none.jsonl does not exist",
    "run --pair tiny-rl --problems stori": "did you mean 'story'?",
    "run --base ./nowhere --thinking bundled:tiny-rl --problems story": "there is no model folder ./nowhere",
    "run --pair tiny-rl --config none.yaml": "none.yaml",
    "run --pair tiny-rl --config {wrong}": "unknown key 'stepz' in {wrong}.steering",
    "run --pair tiny-rl --device gpu": "unknown device 'gpu'",
    "run --pair tiny-rl --dtype f32": "unknown dtype 'f32'",
    "run --pair tiny-rl --seed -1": "-1 is not a seed",
    "run --pair tiny-rl --out {wrong}": "--out {wrong} is a file",
    "run --pair tiny-rl --limit 0": "sizes.limit is 0; it must be at least 1",
    "discover --pair tiny-rl --train 0": "sizes.train is 0; it must be at least 1",
    "run --nope": "No such option: --nope (see ",
    "run --pair tiny-rl --engine many": "engine is 'many'; give here, processes:N",
    "run --pair tiny-rl --base-template x=1": "--base-template is for a model given with --base",
    "run --pair tiny-rl --thinking-prompt Q:{{question}}": "--thinking-prompt is for a model given with --thinking",
    "run --pair tiny-rl --problems story+": "join a set without a name",
    "plan": "no models given",
    "plan --pair nosuch": "unknown pair 'nosuch'",
    "plan --pair tiny-rl --memory 80XB": "memory is '80XB'; write an amount with its unit",
    "plan --pair tiny-rl --tokens 0": "Invalid value for '--tokens'",
    "plan --pair tiny-rl --device gpu": "unknown device 'gpu'",
    "discover --pair nosuch": "unknown pair 'nosuch'",
    "discover --pair tiny-rl --rivals agglomerativ": "did you mean 'agglomerative'?",
    "discover --pair tiny-rl --judge ./nowhere": "there is no model folder ./nowhere",
    "circuits --behaviour": "requires an argument",
    "circuits --pair tiny-rl": "name one behaviour: a type, counter or category (--behaviour)",
    "circuits --pair tiny-rl --behaviour check --sentence So": "name one behaviour",
    "circuits --pair tiny-rl --sentence (": "'(' is no regular expression: missing )",
    "circuits --pair tiny-rl --pairs none.jsonl": "there is no file none.jsonl (--pairs)",
    "circuits --pair tiny-rl --pairs p.jsonl --behaviour check": "pairs of texts need no behaviour",
    "circuits --behaviour check": "name one model: a pair (--pair)",
    "circuits --thinking ./nowhere --behaviour check": "there is no model folder ./nowhere",
    "circuits --pair tiny-rl --behaviour check --method eep": "did you mean 'eap'?",
    "circuits --pair tiny-rl --behaviour 3 --run none": "none holds no taxonomy",
    "anchors": "no model given; name one of --pair",
    "anchors --pair tiny-rl --measure resiliense": "did you mean 'resilience'?",
    "anchors --rollouts none": "there is no folder none (--rollouts)",
    "diff --pair tiny-rl --part hed": "did you mean 'heads'?",
    "diff --pair tiny-rl --series rl=none": "there is no folder none of a checkpoint series",
    "adapter tune --out x": "name a run (--run), or your own model and texts",
    "adapter tune --model bundled:tiny-rl --texts none.jsonl --out x": "there is no file none.jsonl (--texts)",
    "adapter tune --run none --out x --objective rasa": "there is no objective 'rasa'; did you mean 'resa'?",
    "adapter sae --out x": "name a run (--run), or your own model and texts",
    "adapter study --out x": "name a run (--run), or your own model and texts",
    "adapter study --run none --rows rasa --out x": "did you mean 'resa'?",
    "adapter verify none": "none holds no finished adapter",
    "adapter export none --to peff": "there is no format 'peff'",
    "adapter attach none --question hi": "none holds no finished adapter",
    "push none me/x": "none holds no finished adapter",
    "hybrid --run none": "none holds no run",
    "chat --run none": "none holds no run",
    "compare none other": "none holds no results.json",
    "report none": "none holds no results.json",
    "sites ./none": "there is no model folder ./none",
    "sites bundled:tiny-lr": "did you mean 'tiny-rl'?",
    "check": "Missing argument 'model'",
    "check ./none": "there is no model folder ./none",
    "check bundled:tiny-lr": "did you mean 'tiny-rl'?",
    "check bundled:tiny-rl --prompt What": "has no {{question}}",
    "check bundled:tiny-rl --dtype f32": "unknown dtype 'f32'",
    "check bundled:tiny-rl --texts none.jsonl": "there is no file none.jsonl (--texts)",
    "doctor now": "Got unexpected extra argument",
    "organism --series --decoupled": "give one of them",
    "organism --seed -1": "-1 is not a seed",
}


def test_no_mistake_waits_for_torch(tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("steering: {stepz: 3}")
    cases = [case.format(wrong=wrong) for case in CASES]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    for case, said, (code, stderr, slow) in zip(cases, CASES.values(), told, strict=True):
        assert (code, slow) == (2, False), (case, stderr)
        assert said.format(wrong=wrong) in re.sub(r" \(Possible options: [^)]*\)", "", stderr), (case, stderr)
        assert stderr.count("\n") == 1, (case, stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.yaml"], "nothing is written"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "runs/x/results.json"), "runs/x/results.json: No space left on device"),
        (PermissionError(13, "Permission denied", "/root/x"), "/root/x: Permission denied"),
        (OSError(30, "Read-only file system"), "Read-only file system"),
        (OSError("the pipe is gone"), "the pipe is gone"),
    ],
)
def test_an_error_of_the_disk_is_one_line(monkeypatch, error, said):
    def failing():
        raise error

    monkeypatch.setattr("probe.models.list_pairs", failing, raising=False)
    done = CliRunner().invoke(app, ["pairs"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"probe: {said}\n"


@pytest.mark.parametrize("shown", ["{", "[3]", '{"a": 1}', '[{"arms": 3}]'])
def test_a_damaged_file_of_a_run_is_one_line(tmp_path, shown):
    (tmp_path / "results.json").write_text('{"schema": 1, "pair": "a", "arms": {}}')
    (tmp_path / "shown.json").write_text(shown)
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "shown.json" in done.stderr


def test_paths_in_a_file_of_settings_are_relative_to_it(tmp_path, monkeypatch):
    from probe.cli.common import settings
    from probe.models import find_pair
    from probe.pipeline import AdapterConfig, RunConfig

    home = tmp_path / "project"
    for model in ("base", "thinking"):
        (home / "models" / model).mkdir(parents=True)
        (home / "models" / model / "config.json").write_text("{}")
    (home / "mine.jsonl").write_text("")
    (home / "pair.yaml").write_text(
        'name: mine\nbase: {path: models/base, prompt: "{question}"}\n'
        'thinking: {path: ./models/thinking, prompt: "{question}"}\nproblems: mine.jsonl'
    )
    (home / "run.yaml").write_text("pair: pair.yaml\nproblems: mine.jsonl")
    (home / "tune.yaml").write_text("model: {path: models/base, prompt: chat}\ntexts: mine.jsonl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for file in ("project/run.yaml", str(home / "run.yaml"), "~/project/run.yaml"):
        chosen = settings(RunConfig, Path(file), {})
        assert chosen.pair == str(home / "pair.yaml") and chosen.problems == str(home / "mine.jsonl")
    for file in ("project/pair.yaml", "~/project/pair.yaml"):
        pair = find_pair(file)
        assert [pair.base.path, pair.thinking.path] == [str(home / "models" / name) for name in ("base", "thinking")]
        assert pair.problems == str(home / "mine.jsonl")
    tune = settings(AdapterConfig, home / "tune.yaml", {})
    assert tune.model is not None and tune.model.path == str(home / "models/base")
    assert tune.texts == str(home / "mine.jsonl")
    # An option is relative to the current folder, and a hub id or a bundled name is no path.
    given = {"base": {"path": "project/models/base"}, "thinking": {"path": "org/name"}}
    assert settings(RunConfig, None, given).base.path == "project/models/base"
    (home / "names.yaml").write_text("pair: tiny-rl\nproblems: story")
    assert settings(RunConfig, home / "names.yaml", {}).pair == "tiny-rl"

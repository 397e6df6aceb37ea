"""What a person and a script see of the command: groups, the first screen, --quiet, --json, exit codes, completion."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from probe import __version__
from probe.cli import app
from probe.errors import ProbeError

RESULTS = {"schema": 1, "pair": "tiny-rl", "arms": {"base": {"accuracy": 0.2, "ci": [0.1, 0.3]}}}


def probe(*arguments: str, columns: int = 80):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(columns), "TERM": "dumb"})


def test_commands_are_in_groups_and_each_is_one_line():
    lines = probe("--help").output.splitlines()
    assert max(map(len, lines)) <= 80
    groups = [line.strip("╭─╮ ") for line in lines if line.startswith("╭")]
    inside = ["Behaviours", "Inside the models", "Adapters", "Models, traces and this machine", "Bundled models"]
    assert groups == ["Options", "Runs", *inside]
    commands = get_command(app).commands
    shown = [line.split()[1] for line in lines[lines.index(next(x for x in lines if "─ Runs ─" in x)) :] if "│" in line]
    assert sorted(shown) == sorted(commands), "each command is on one line, and nothing else is there"


def test_probe_alone_says_what_to_do_first():
    done = probe()
    lines = done.stdout.splitlines()
    assert (done.exit_code, done.stderr) == (0, "")
    assert len(lines) <= 20 and max(map(len, lines)) <= 80
    for command in ("probe demo", "probe look --base", "probe doctor", "probe --help"):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [(["--version"], 0, f"probe {__version__}"), (["run", "--help"], 0, "Usage: probe run"), (["pairs", "no"], 2, "")],
)
def test_the_package_runs_as_the_command_does(arguments, code, said):
    done = subprocess.run([sys.executable, "-m", "probe", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code and said in done.stdout, done.stderr


@pytest.fixture
def progress(monkeypatch) -> list[bool]:
    """Whether each run was asked to show progress; the run itself does nothing but print."""
    import probe.pipeline as pipeline

    asked: list[bool] = []

    def run(*_: object, progress: bool) -> dict:
        asked.append(progress)
        print("a library prints")  # noqa: T201
        return RESULTS

    monkeypatch.setattr(pipeline, "run", run)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # --quiet sets it for the rest of the process
    return asked


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_leaves_the_paths_of_the_results(progress, tmp_path, place):
    run = ["run", "--pair", "tiny-rl", "--out", str(tmp_path)]
    done = probe("--quiet", *run) if place == "before" else probe(*run, "-q")
    assert done.exit_code == 0, done.output
    lines = [f"Results: {tmp_path / 'results.json'}", f"Report:  {tmp_path / 'report.html'}"]
    assert done.stdout.splitlines() == ["a library prints", *lines]
    assert (progress, done.stderr) == ([False], "")
    assert "20% [10, 30]" in probe(*run).stdout and progress == [False, True]


def test_quiet_is_taken_by_every_command_that_takes_long():
    commands = get_command(app).commands
    adapter = commands["adapter"].commands
    long = [commands[name] for name in ("run", "look", "hybrid", "discover", "circuits", "diff", "anchors", "organism")]
    long += [adapter[name] for name in ("tune", "sae", "verify", "study")] + [commands["traces"].commands["import"]]
    assert [each.name for each in long if "quiet" not in {option.name for option in each.params}] == []


def test_json_is_alone_on_stdout(progress, tmp_path):
    done = probe("run", "--pair", "tiny-rl", "--out", str(tmp_path), "--json")
    assert (done.exit_code, json.loads(done.stdout), progress) == (0, RESULTS, [True])
    assert "a library prints" in done.stderr


@pytest.mark.parametrize(
    ("name", "arguments"), [("doctor", ["doctor"]), ("run_checks", ["check", "bundled:tiny-base"])]
)
def test_json_of_checks_is_alone_on_stdout(monkeypatch, name, arguments):
    import probe.pipeline as pipeline
    from probe.pipeline.check.checks import Checks
    from probe.pipeline.doctor.diagnosis import Diagnosis

    def found(*_: object, **__: object) -> object:
        print("a library prints")  # noqa: T201
        return Diagnosis(()) if name == "doctor" else Checks("tiny-base", (), 0.0)

    monkeypatch.setattr(pipeline, name, found)
    done = probe(*arguments, "--json")
    assert done.exit_code == 0, done.output
    assert 0 in json.loads(done.stdout).values() and "a library prints" in done.stderr


def test_json_of_what_is_listed(tmp_path):
    from probe.models import list_pairs, site_table

    pairs = {each["name"]: each for each in json.loads(probe("pairs", "--json").stdout)}
    assert list(pairs) == [pair.name for pair in list_pairs()]
    assert pairs["orz-1.5b"]["weights"] == 6174857216
    assert pairs["orz-1.5b"]["parameters"] == {"base": 1543714304, "thinking": 1543714304}
    assert json.loads(probe("pairs", "orz-1.5b", "--json").stdout) == pairs["orz-1.5b"]
    found = json.loads(probe("sites", "bundled:tiny-base", "--json").stdout)
    assert [tuple(each.values()) for each in found["sites"]] == list(site_table("bundled:tiny-base").rows)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(RESULTS))
    page = tmp_path / "page.html"
    done = probe("compare", str(tmp_path / "one"), str(tmp_path / "other"), "--json", "--html", str(page))
    assert [run["results"] for run in json.loads(done.stdout)["runs"]] == [RESULTS] * 2
    assert page.is_file()


def test_json_is_one_document_wherever_it_is_offered():
    offered = {
        name for name, command in get_command(app).commands.items() if "json" in {each.name for each in command.params}
    }
    assert offered == {"run", "look", "plan", "compare", "pairs", "sites", "check", "doctor"}


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_table_of_sites_is_complete(columns):
    from probe.models import site_table

    text = probe("sites", "bundled:tiny-base", columns=columns).stdout
    about, *table = text.splitlines()
    assert about == site_table("bundled:tiny-base").about and "…" not in text
    assert max(len(line) for line in table) <= columns
    words = {word for row in site_table("bundled:tiny-base").rows for cell in row for word in cell.split()}
    assert {word for word in words if word not in text and len(word) < columns - 6} == set()
    assert all(name in text for name in ("shape", "what it is", "in the model", "TransformerLens"))


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_table_of_pairs_is_complete(columns):
    from probe.models import list_pairs

    text = probe("pairs", columns=columns).stdout
    assert "…" not in text and max(map(len, text.splitlines())) <= columns
    assert all(pair.name in text for pair in list_pairs())
    assert all(name in text for name in ("parameters", "weights", "problems", "source", "differs"))


@pytest.mark.parametrize(
    ("raised", "code"),
    [(None, 0), (ProbeError("a mistake"), 2), (OSError(28, "No space left"), 2), (KeyboardInterrupt(), 130)],
)
def test_exit_codes(monkeypatch, tmp_path, raised, code):
    import probe.pipeline as pipeline

    def run(*_: object, **__: object) -> dict:
        if raised is not None:
            raise raised
        return RESULTS

    monkeypatch.setattr(pipeline, "run", run)
    assert probe("run", "--pair", "tiny-rl", "--out", str(tmp_path)).exit_code == code


@pytest.mark.parametrize("wrong", [False, True])
def test_a_check_that_finds_something_wrong_ends_with_1(monkeypatch, wrong):
    import probe.pipeline as pipeline
    from probe.pipeline.doctor.diagnosis import Diagnosis, Fact

    fact = Fact("packages", "torch", "1.0 " + "very " * 30 + "old", "wrong" if wrong else "ok", "upgrade it")
    monkeypatch.setattr(pipeline, "doctor", lambda: Diagnosis((fact,)))
    done = probe("doctor")
    assert done.exit_code == int(wrong)
    assert max(map(len, done.stdout.splitlines())) <= 80 and "upgrade it" in done.stdout
    assert json.loads(probe("doctor", "--json").stdout)["wrong"] == int(wrong)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("probe ru", ["run"]),
        ("probe adapter s", ["sae", "study"]),
        ("probe run --thinking-u", ["--thinking-url"]),
        ("probe --ins", []),
    ],
)
def test_the_shell_completes_without_torch(words, offered):
    code = (
        "import sys; from probe.cli import main\n"
        "try: main()\n"
        "finally: print({'torch', 'transformers', 'numpy', 'rich'} & sys.modules.keys(), file=sys.stderr)"
    )
    asked = {"_PROBE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | asked, check=False
    )
    assert done.stdout.split() == offered
    assert done.stderr.strip() == "set()"


def test_the_shell_is_told_how_to_complete():
    code = "from probe.cli import main; main()"
    asked = os.environ | {"_PROBE_COMPLETE": "source_bash"}  # as --show-completion, which asks which shell this is
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=asked, check=False)
    assert "complete -o default -F _probe_completion probe" in done.stdout
    assert "--show-completion" not in probe("--help").output


def test_what_is_written_down_names_every_group_and_code():
    told = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    for name in get_command(app).commands:
        assert f"`{name}`" in told, name
    for said in ("| 0 |", "| 1 |", "| 2 |", "| 130 |", "--quiet", "--json", "--install-completion"):
        assert said in told, said

"""Commands on folders whose files are damaged: each does its work, or refuses in one line and changes nothing.

The bytes, the values and the names of files are changed at random. Models are not: they have fuzz tests of their own.
"""

import importlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from probe.config import from_dict
from probe.pipeline import AdapterConfig, DiscoverConfig, RunConfig, discover, run, tune_adapter
from tests.cli.damage import Damage, Home, contents, damages, ending

QUESTION = "Mia has 22 cards. First, Mia doubles the cards. How many cards does Mia have?"
SMALL = {
    "pair": "tiny-rl",
    "device": "cpu",
    "shown": 2,
    "sizes": {"train": 6, "validation": 4, "test": 2},
    "decoding": {"batch_size": 2, "max_new_tokens": 12},
    "taxonomy": {"sites": ["resid_post.2"], "sizes": [2], "k": 1, "steps": 5, "seeds": [0], "rivals": []},
}
OWN = {
    "look": 0,
    "steering": {"steps": 2, "seeds": [0]},
    "policy": {"steps": 2},
    "hybrid": {"arms": ["hybrid", "oracle-free"]},
}
TESTS = {"falsify": {"sentences": 2, "prefixes": 1, "samples": 1, "new_tokens": 6}}


def random_damage(n: int):
    """Run a test on ``n`` damages, always the same ones."""

    def of(test):
        kept = {"database": None, "deadline": None, "derandomize": True, "phases": [Phase.generate]}
        return settings(max_examples=n, suppress_health_check=list(HealthCheck), **kept)(given(damage=damages)(test))

    return of


def once(load):
    """A function that loads each model once."""
    loaded = {}

    def kept(config, **how):
        key = repr((config, how))
        if key not in loaded:
            loaded[key] = load(config, **how)
        return loaded[key]

    return kept


@pytest.fixture(scope="module", autouse=True)
def light():
    """Pages without the plotting library, and models that are loaded once: neither is damaged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plotly.offline.get_plotlyjs", lambda: "plotting")
        for module, name in (("run.inputs", "load_pair"), ("discover.discover", "load_model")):
            place = importlib.import_module(f"probe.pipeline.{module}")
            patch.setattr(place, name, once(getattr(place, name)))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("fuzz") / "run"
    run(from_dict(RunConfig, SMALL | OWN), out)
    return out


def copy_of(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


class Folders:
    """Copies of finished folders, one for each command, made when they are needed."""

    def __init__(self, run: Path, top: Path) -> None:
        self.top = top
        self.made: dict[str, tuple[Home, list[str]]] = {}
        self.run = run

    def of(self, command: str) -> tuple[Home, list[str]]:
        if command not in self.made:
            self.made[command] = getattr(self, command)(self.top / command)
        return self.made[command]

    def report(self, at: Path) -> tuple[Home, list[str]]:
        folder = copy_of(self.run, at)
        return Home(folder, "results.json", "behaviours.json", "shown.json"), ["report", str(folder)]

    def compare(self, at: Path) -> tuple[Home, list[str]]:
        folder, other = copy_of(self.run, at), copy_of(self.run, at.with_name("other"))
        return Home(folder, "results.json", "graded.json", "config.json"), ["compare", str(other), str(folder)]

    def chat(self, at: Path) -> tuple[Home, list[str]]:
        folder = copy_of(self.run, at)
        names = ("*.json", "traces/**/*", "activations/**/*", "taxonomy/**/*", "steering/**/*", "policy/*")
        return Home(folder, *names), ["chat", "--run", str(folder), "--question", QUESTION, "--arm", "oracle-free"]

    def again(self, at: Path) -> tuple[Home, list[str]]:
        folder = copy_of(self.run, at)
        file = at.with_suffix(".yaml")
        file.write_text(json.dumps(SMALL | OWN))
        command = ["run", "--config", str(file), "--out", str(folder)]
        assert ending(*command) == (0, "")  # the copy notes where it is now
        return Home(folder, "*.json", "*/**/*"), command

    def hybrid(self, at: Path) -> tuple[Home, list[str]]:
        folder = copy_of(self.run, at)
        command = ["hybrid", "--run", str(folder), "--problems", "1", "--where", "sentence-start:1"]
        assert ending(*command) == (0, "")
        return Home(folder, "own/**/*", "*.json", "steering/**/*", "arms/**/*"), command

    def discover(self, at: Path) -> tuple[Home, list[str]]:
        file = at.with_suffix(".yaml")
        file.write_text(json.dumps(SMALL | TESTS | {"sizes": {"train": 8, "validation": 4}}))
        discover(from_dict(DiscoverConfig, json.loads(file.read_text())), at)
        names = ("*.json", "traces/**/*", "activations/**/*", "taxonomy/**/*", "cards/**/*", "neuronpedia/*")
        return Home(at, *names), ["discover", "--config", str(file), "--out", str(at)]

    def verify(self, at: Path) -> tuple[Home, list[str]]:
        settings = {"run": str(self.run), "held": 2, "problems": 2, "tune": {"steps": 1}, "device": "cpu"}
        tune_adapter(from_dict(AdapterConfig, settings), at)
        return Home(at, "*.json", "adapter/probe.json", "adapter/history.json"), ["adapter", "verify", str(at)]

    def push(self, at: Path) -> tuple[Home, list[str]]:
        home, _ = self.of("verify")
        folder = copy_of(home.folder, at)
        return Home(folder, "config.json", "adapter/*.json"), ["push", str(folder), "me/adapter", "--dry-run"]


@pytest.fixture(scope="module")
def folders(finished, tmp_path_factory) -> Folders:
    return Folders(finished, tmp_path_factory.mktemp("damaged"))


@pytest.mark.parametrize("command", ["report", "compare"])
@random_damage(20)
def test_reports_of_damaged_runs(folders, command, damage: Damage):
    home, arguments = folders.of(command)
    assert home.check(damage, *arguments) == ""


@random_damage(6)
def test_questions_to_damaged_runs(folders, damage: Damage):
    home, arguments = folders.of("chat")
    assert home.check(damage, *arguments) == ""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["report", "compare", "chat", "again", "hybrid", "discover", "verify", "push"])
@random_damage(25)
def test_every_command_on_damaged_folders(folders, command, damage: Damage):
    home, arguments = folders.of(command)
    assert home.check(damage, *arguments) == ""


def test_whole_folders_are_served(folders):
    for command in ("report", "compare", "chat"):
        home, arguments = folders.of(command)
        before = contents(home.folder)
        assert ending(*arguments) == (0, "")
        now = contents(home.folder)
        assert {name for name in now if now[name] != before.get(name)} <= {"report.html"}


@pytest.mark.parametrize("name", ["results.json", "behaviours.json"])
@pytest.mark.parametrize(
    "written",
    [b"", b"\xff", b"[" * 100_000, b"1" * 5000, b'{"schema": 1, "arms": {"base": {"accuracy": NaN}}}', b'["\\ud800"]'],
)
def test_files_that_are_not_json(folders, name, written):
    home, arguments = folders.of("report")
    (home.folder / name).write_bytes(written)
    before = contents(home.folder)
    try:
        assert ending(*arguments) == (2, "")
        assert contents(home.folder) == before
    finally:
        home.restore()

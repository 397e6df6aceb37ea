"""The command: what it hands on, and how it ends."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from probe import __version__
from probe.cli import app
from probe.errors import ProbeError

RESULTS = {"schema": 1, "pair": "tiny-rl", "arms": {"base": {"accuracy": 0.2, "ci": [0.1, 0.3]}}}


@dataclasses.dataclass(frozen=True)
class Model:
    path: str
    prompt: str = "{question}"
    template: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Config:
    """Stands for the pipeline's configuration: the same fields, and none of its imports."""

    pair: str | None = None
    base: Model | None = None
    thinking: Model | None = None
    problems: str | None = None
    device: str = "auto"
    dtype: str = "float32"
    seed: int = 0

    @property
    def name(self) -> str:
        return self.pair or "own-name"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Config, Path]]:
    """Every call of the pipeline, which does nothing."""
    made: list[tuple[Config, Path]] = []

    def run(config: Config, out: Path, *, progress: bool) -> dict[str, Any]:
        assert progress
        made.append((config, out))
        return RESULTS

    pipeline = ModuleType("probe.pipeline")
    pipeline.__dict__.update(RunConfig=Config, run=run)
    monkeypatch.setitem(sys.modules, "probe.pipeline", pipeline)
    return made


def probe(*arguments: str):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "80", "TERM": "dumb"})


def test_run(calls):
    done = probe("run", "--pair", "tiny-rl", "--out", "somewhere", "--device", "cpu", "--seed", "3")
    assert done.exit_code == 0, done.output
    assert calls == [(Config(pair="tiny-rl", device="cpu", seed=3), Path("somewhere"))]
    assert "20% [10, 30]" in done.output
    assert f"Report:  {Path('somewhere/report.html')}" in done.output


def test_run_two_models(calls):
    done = probe(
        "run", "--base", "./b", "--thinking", "org/t-1.5", "--thinking-prompt", "chat", "--problems", "p.jsonl"
    )
    assert done.exit_code == 0, done.output
    expected = Config(base=Model("./b"), thinking=Model("org/t-1.5", "chat"), problems="p.jsonl")
    assert calls == [(expected, Path("runs/own-name"))]


def test_prompts_in_options_have_line_ends_and_templates_have_arguments(calls, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("thinking: {path: t, prompt: 'Q: {question}\\nA:'}")
    options = ["--base", "b", "--base-prompt", r"Q: {question}\nIn \boxed{}, with \\nabla\tA:"]
    options += ["--thinking-template", "enable_thinking=false, reasoning_effort=high,n=3"]
    assert probe("run", "--config", str(file), *options).exit_code == 0
    ((config, _),) = calls
    assert config.base.prompt == "Q: {question}\nIn \\boxed{}, with \\nabla\tA:"
    assert config.thinking.template == {"enable_thinking": False, "reasoning_effort": "high", "n": 3}
    assert config.thinking.prompt == r"Q: {question}\nA:", "YAML has escapes of its own"


@pytest.mark.parametrize("given", ["enable_thinking", "=false", "a=1,b=", "a=[1", "a=null"])
def test_arguments_of_a_template_that_are_none_are_one_line(calls, given):
    done = probe("run", "--base", "b", "--thinking", "t", "--base-template", given)
    assert (done.exit_code, calls, done.stderr.count("\n")) == (2, [], 1)
    assert "--base-template has" in done.stderr


@pytest.mark.parametrize(
    ("yaml", "options", "expected"),
    [
        ("pair: a\nseed: 4", [], Config(pair="a", seed=4)),
        ("pair: a\nseed: 4", ["--seed", "5"], Config(pair="a", seed=5)),
        ("pair: a", ["--base", "b", "--thinking", "t"], Config(base=Model("b"), thinking=Model("t"))),
        ("base: {path: b}\nthinking: {path: t}", ["--pair", "a"], Config(pair="a")),
        (
            "base: {path: b, prompt: 'Q {question}'}\nthinking: {path: t}",
            ["--base", "c"],
            Config(base=Model("c", "Q {question}"), thinking=Model("t")),
        ),
    ],
)
def test_options_win_over_the_file(calls, tmp_path, yaml, options, expected):
    file = tmp_path / "run.yaml"
    file.write_text(yaml)
    done = probe("run", "--config", str(file), *options)
    assert done.exit_code == 0, done.output
    assert calls[0][0] == expected


def test_a_mistake_is_one_line(calls, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("pair: a\nsed: 3")
    done = probe("run", "--config", str(file))
    assert (done.exit_code, done.stdout, calls) == (2, "", [])
    assert done.stderr == f"probe: unknown key 'sed' in {file}; did you mean 'seed'?\n"


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("pair: tiny-rl\ndecoding: {batch_size: 0}", "decoding.batch_size is 0; it must be at least 1"),
        ("pair: tiny-rl\nsteering: {lr_strength: -1}", "steering.lr_strength is -1.0; it must be above 0"),
        (
            "pair: tiny-rl\ntaxonomy: {sites: [resid_pre.1]}",
            "taxonomy.sites has resid_pre.1; decoding reads tiny-rl at ",
        ),
        (
            "pair: tiny-rl\ntaxonomy: {sites: [resid_post.9]}",
            "taxonomy.sites has resid_post.9; decoding reads tiny-rl at ",
        ),
    ],
)
def test_what_would_fail_after_hours_fails_at_once(tmp_path, monkeypatch, yaml, said):
    monkeypatch.setattr("probe.hooks.decoding.runner.Runner.prefill", lambda _: pytest.fail("a model ran"))
    file, out = tmp_path / "run.yaml", tmp_path / "run"
    file.write_text(yaml)
    done = probe("run", "--config", str(file), "--out", str(out))
    assert (done.exit_code, done.stdout, out.exists()) == (2, "", False)
    assert done.stderr.startswith(f"probe: {said}")
    assert done.stderr.count("\n") == 1


def test_discover(monkeypatch, tmp_path):
    import probe.pipeline as pipeline

    made = []
    found = {"schema": 1, "model": "tiny-rl", "taxonomy": {"site": "resid_post.2", "n_behaviours": 2}}
    monkeypatch.setattr(pipeline, "discover", lambda *given, progress: made.append((*given, progress)) or found)
    file = tmp_path / "discover.yaml"
    file.write_text("pair: tiny-rl\nseed: 4\ntaxonomy: {steps: 7, sizes: [3]}\njudge: {model: a, sample: 9}")
    options = ["--sites", "resid_post.1,resid_post.2", "--sizes", "2,4-8:2", "--rivals", "none"]
    options += ["--judge-url", "http://h/v1", "--seed", "5"]
    done = probe("discover", "--config", str(file), *options)
    assert done.exit_code == 0, done.output
    ((config, out, progress),) = made
    assert (config.pair, config.seed, out, progress) == ("tiny-rl", 5, Path("runs/tiny-rl-behaviours"), True)
    taxonomy, judge = config.taxonomy, config.judge
    assert (taxonomy.sites, taxonomy.sizes) == (("resid_post.1", "resid_post.2"), (2, 4, 6, 8))
    assert (taxonomy.rivals, taxonomy.steps) == ((), 7)
    assert (judge.model, judge.url, judge.sample) == ("a", "http://h/v1", 9)
    assert "Two behaviours of tiny-rl at resid_post.2" in done.output
    assert f"Report:   {Path('runs/tiny-rl-behaviours/report.html')}" in done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "name one model: a pair (--pair), whose thinking model is used, or a thinking model (--thinking)"),
        ("--pair tiny-rl --thinking bundled:tiny-rl", "name one model: a pair"),
        ("--pair tiny-lr", "unknown pair 'tiny-lr'; did you mean 'tiny-rl'?"),
        (
            "--thinking bundled:tiny-rl --thinking-prompt chat --problems story",
            "the tokenizer of 'bundled:tiny-rl' has",
        ),
        ("--thinking bundled:tiny-rl", "no problems given"),
        ("--pair tiny-rl --problems gsm9k", "unknown problem set 'gsm9k'; did you mean 'gsm8k'?"),
        ("--pair tiny-rl --rivals agglomerativ", "unknown family 'agglomerativ' in taxonomy.rivals; did you mean"),
        ("--pair tiny-rl --sizes abc", "--sizes abc is not a list of numbers; write 4,8,12 or 5-50:5"),
        ("--pair tiny-rl --sizes 8-4", "--sizes 8-4 is not a list of numbers"),
        ("--pair tiny-rl --sizes 4-8:0", "--sizes 4-8:0 is not a list of numbers"),
        ("--pair tiny-rl --sizes 0", "taxonomy.sizes has 0; a taxonomy needs at least 2 behaviours"),
        ("--pair tiny-rl --sizes 1,4", "taxonomy.sizes has 1; a taxonomy needs at least 2 behaviours"),
        ("--pair tiny-rl --sites none", "unknown kind of site 'none'"),
        ("--pair tiny-rl --sites resid_post.9", "this model has no site resid_post.9; it has layers 0 to 3"),
        ("--pair tiny-rl --sites resid_post.1,resid_post.1", "taxonomy.sites names a site twice"),
        ("--pair tiny-rl --sites pattern.1", "taxonomy.sites has pattern.1, which has no vector for each token"),
        ("--pair tiny-rl --device cuda:7", "there is no device 'cuda:7'"),
        ("--pair tiny-rl --config {wrong}", "unknown key 'sitess' in {wrong}.taxonomy; did you mean 'sites'?"),
        ("--pair tiny-rl --out {file}", "--out {file} is a file: name a folder"),
        ("--pair tiny-rl --judge-url http://127.0.0.1:9/v1", "missing key 'model' in "),
        ("--pair tiny-rl --judge m --judge-url http://127.0.0.1:9/v1", "nothing answers at http://127.0.0.1:9/v1"),
    ],
)
def test_a_discovery_that_cannot_work_is_one_line_at_once(tmp_path, monkeypatch, options, said):
    monkeypatch.setattr("probe.hooks.decoding.runner.Runner.prefill", lambda _: pytest.fail("a model ran"))
    monkeypatch.setattr("probe.servers.client.time.sleep", lambda _: None)
    file, wrong, out = tmp_path / "large.yaml", tmp_path / "wrong.yaml", tmp_path / "out"
    file.write_text("sizes: {train: 10}")
    wrong.write_text("taxonomy: {sitess: [resid_post.1]}")
    given = ["--out", str(out), *options.format(file=file, wrong=wrong).split()]
    done = probe("discover", *given)
    assert (done.exit_code, done.stdout, out.exists()) == (2, "", False)
    assert done.stderr.startswith(f"probe: {said.format(file=file, wrong=wrong)}")
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("calls")
def test_many_lines_become_one(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ProbeError("first\n  second")

    monkeypatch.setattr(sys.modules["probe.pipeline"], "run", fail)
    done = probe("run", "--pair", "a")
    assert (done.exit_code, done.stderr) == (2, "probe: first second\n")


@pytest.mark.usefixtures("calls")
def test_stopped(monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["probe.pipeline"], "run", stop)
    done = probe("run", "--pair", "a")
    assert done.exit_code == 130
    assert done.stderr == "probe: interrupted; run the same command again to resume\n"


@pytest.mark.usefixtures("calls")
def test_a_fault_is_not_hidden(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys.modules["probe.pipeline"], "run", fail)
    done = probe("run", "--pair", "a")
    assert isinstance(done.exception, ZeroDivisionError)


def test_pairs():
    from probe.models import list_pairs

    done = probe("pairs")
    assert done.exit_code == 0, done.output
    assert all(pair.name in done.output for pair in list_pairs())
    assert max(map(len, done.output.splitlines())) <= 80
    bundled, published = done.output.split("Published")
    assert "tiny-rl" in bundled and "orz-1.5b" in published
    assert "1.54B" in published and "6.17 GB" in published


def test_one_pair_is_shown_as_a_file_that_can_be_used(tmp_path):
    from probe.models import find_pair

    done = probe("pairs", "orz-1.5b")
    assert done.exit_code == 0 and done.output.endswith("# Memory of the weights in bfloat16: 6.17 GB\n")
    (tmp_path / "mine.yaml").write_text(done.output)
    assert find_pair(tmp_path / "mine.yaml") == find_pair("orz-1.5b")
    assert probe("pairs", str(tmp_path / "mine.yaml")).output == f"{done.output}{done.output.splitlines()[-1]}\n"
    wrong = probe("pairs", "orz-1.6b")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert wrong.stderr == "probe: unknown pair 'orz-1.6b'; did you mean 'orz-1.5b'?\n"


def test_organism(monkeypatch):
    made = []
    organisms = ModuleType("probe.organisms")
    organisms.__dict__["build"] = lambda out, *, seed, progress: made.append((out, seed, progress))
    organisms.__dict__["build_decoupled"] = lambda *_, **__: pytest.fail("not asked for")
    organisms.__dict__["build_series"] = lambda out, *, seed, progress: made.append(("series", out, seed, progress))
    monkeypatch.setitem(sys.modules, "probe.organisms", organisms)
    done = probe("organism", "--out", "models", "--seed", "2")
    assert (done.exit_code, made) == (0, [(Path("models"), 2, True)])
    done = probe("organism", "--series", "--out", "steps", "--seed", "1")
    assert (done.exit_code, made[1:]) == (0, [("series", Path("steps"), 1, True)])
    both = probe("organism", "--series", "--decoupled")
    assert both.exit_code == 2 and "give one of them" in both.stderr and len(made) == 2


def test_report(tmp_path):
    (tmp_path / "results.json").write_text('{"schema": 1}')
    done = probe("report", str(tmp_path))
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'report.html'}\n")
    assert (tmp_path / "report.html").is_file()


def test_report_of_nothing(tmp_path):
    done = probe("report", str(tmp_path / "none"))
    assert done.exit_code == 2
    assert done.stderr.startswith("probe: ")
    assert done.stderr.count("\n") == 1


def test_compare(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(RESULTS))
    done = probe("compare", str(tmp_path / "one"), str(tmp_path / "other"), "--html", str(tmp_path / "page.html"))
    assert done.exit_code == 0, done.output
    assert "20% correct" in done.output and "share no problem" in done.output
    assert "2 runs compared" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (["one"], "at least two runs"),
        (["one", "one"], "named twice"),
        (["one", "none"], "none holds no results.json"),
    ],
)
def test_what_cannot_be_compared(tmp_path, runs, said):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "results.json").write_text(json.dumps(RESULTS))
    done = probe("compare", *(str(tmp_path / run) for run in runs))
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


@pytest.mark.parametrize("command", ["hybrid", "chat"])
def test_what_needs_a_run_says_so(tmp_path, command):
    done = probe(command, "--run", str(tmp_path / "none"))
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "none holds no run; make one with: probe run" in done.stderr


def test_version():
    assert probe("--version").stdout == f"probe {__version__}\n"


def _commands(command: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """The command itself and every command below it, each with its name."""
    below = getattr(command, "commands", {})
    return [(path, command)] + [each for name, sub in below.items() for each in _commands(sub, (*path, name))]


@pytest.mark.parametrize("path", [path for path, _ in _commands(get_command(app))], ids=" ".join)
def test_help_has_an_example(path):
    done = probe(*path, "--help")
    assert done.exit_code == 0
    assert "Example: probe " in done.output
    assert "… │" not in done.output  # a word too long for a narrow terminal is cut


def test_circuits_offers_only_the_devices_that_it_takes():
    assert "balanced" in probe("diff", "--help").output
    assert "balanced" not in probe("circuits", "--help").output


def test_the_help_of_every_option_is_a_sentence():
    texts = {
        (*path, option.name): option.help or ""
        for path, command in _commands(get_command(app))
        for option in command.params
        if option.name != "help"
    }
    assert len(texts) > 90
    assert {name: text for name, text in texts.items() if not (text[:1].isupper() and text.endswith("."))} == {}


def test_attach_takes_the_earlier_name_of_its_limit(monkeypatch):
    import probe.pipeline as pipeline

    made = []
    monkeypatch.setattr(pipeline, "finished_adapter", lambda _: None)
    monkeypatch.setattr(pipeline, "answers", lambda *given: made.append(given) or {"without": "a", "with": "b"})
    for option in ("--max-new-tokens", "--new-tokens"):
        done = probe("adapter", "attach", "somewhere", "--question", "Q?", option, "7")
        assert done.exit_code == 0, done.output
    assert made == [(Path("somewhere"), "Q?", 7)] * 2


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['probe', '--help']\n"
        "from probe.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'plotly', 'sae_lens', 'datasets', 'numpy'} & sys.modules.keys()\n"
        "import os; sys.exit(f'{heavy} {os.environ[\"OMP_WAIT_POLICY\"]}')"
    )
    clean = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    took = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean)
        took.append(time.perf_counter() - began)
        assert done.stderr.strip() == "set() PASSIVE"
    # The goal is half a second on an idle machine; the margin is for one that is busy.
    assert min(took) < 1.5

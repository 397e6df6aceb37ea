"""The package: quick to import, complete without its extras, and typed."""

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import probe

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "sae_lens", "nnsight", "transformer_lens", "plotly", "datasets", "sklearn")
#: Extras, by the name they are imported under.
OPTIONAL = ("reasoning_gym", "gguf", "math_verify", "umap", "nbclient", "nbformat", "jupytext", "ipykernel")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_brings_in_nothing_heavy():
    assert python(f"import sys, probe; print([name for name in {HEAVY} if name in sys.modules])") == "[]"


@pytest.mark.parametrize("name", dir(probe))
def test_every_public_name_is_there_and_explains_itself(name):
    found = getattr(probe, name)
    assert inspect.getdoc(found), f"probe.{name} has no docstring"
    assert not name.startswith("_")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No probe attribute lod_pair"):
        probe.lod_pair  # noqa: B018


def test_every_room_imports_without_the_extras():
    rooms = sorted(path.parent.name for path in (ROOT / "probe").glob("*/__init__.py"))
    code = f"import sys\nfor name in {OPTIONAL}: sys.modules[name] = None\n"
    python(code + "\n".join(f"import probe.{room}" for room in rooms))


@pytest.mark.slow
@pytest.mark.long
def test_the_default_run_and_discovery_need_no_extra(tiny_folder, tmp_path):
    """Both commands with their default arms and tests, in a process in which no extra can be imported."""
    run = {
        "base": {"path": str(tiny_folder("llama", seed=1)), "prompt": "Problem: {question}\nSolution:"},
        "thinking": {"path": str(tiny_folder("llama", seed=2)), "prompt": "Question: {question}\n<think>"},
        "problems": "story",
        "look": 0,
        "sizes": {"train": 8, "validation": 6, "test": 6},
        "decoding": {"batch_size": 8, "max_new_tokens": 16},
        "taxonomy": {"sizes": [2], "k": 1, "steps": 5, "seeds": [0]},
        "steering": {"steps": 2, "seeds": [0]},
        "policy": {"steps": 20},
    }
    discover = {
        "pair": "tiny-rl",
        "sizes": {"train": 12, "validation": 8},
        "decoding": {"max_new_tokens": 60},
        "taxonomy": {"sites": ["resid_post.2"], "sizes": [4], "seeds": [0, 1], "steps": 20},
        "falsify": {"sentences": 2, "prefixes": 1, "samples": 1, "new_tokens": 8},
    }
    calls = []
    for name, settings in (("run", run), ("discover", discover)):
        (tmp_path / f"{name}.yaml").write_text(json.dumps(settings))  # JSON is YAML
        command = [name, "--config", str(tmp_path / f"{name}.yaml"), "--out", str(tmp_path / name), "--device", "cpu"]
        calls.append(f"app({command}, standalone_mode=False)")
    block = f"import sys\nfor name in {OPTIONAL}: sys.modules[name] = None\n"
    code = "\n".join([block, "from probe.cli import app", *calls])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert all((tmp_path / name / "report.html").is_file() for name in ("run", "discover"))
    arms = json.loads((tmp_path / "run" / "results.json").read_text())["arms"]
    assert {"hybrid", "oracle-free", "lora", "majority"} <= set(arms)


def test_dir_shows_the_names_of_the_stub_and_nothing_else():
    stub = ast.parse((ROOT / "probe" / "__init__.pyi").read_text())
    listed = {name.asname for each in stub.body if isinstance(each, ast.ImportFrom) for name in each.names}
    assert set(dir(probe)) == set(probe.__all__) == listed


SCRIPT = """
import probe

pair = probe.load_pair("tiny-rl")
problems = probe.load_problems("story")
train = probe.generate_traces(pair.thinking, problems, problems.take("train", 8), max_new_tokens=50)
checked = probe.generate_traces(pair.thinking, problems, problems.take("validation", 8), max_new_tokens=50)
acts, checked_acts = (probe.harvest(pair.thinking, each, "resid_post.2") for each in (train, checked))
taxonomy = probe.fit_taxonomy(acts, checked_acts)
arm = probe.hybrid_arm(taxonomy, probe.load_mechanism("vectors"))
result = probe.evaluate_arm(pair, arm, problems.take("test", 8), max_new_tokens=50)
lens = probe.EdgeLens(pair.thinking)
with probe.capture(pair.base, ["resid_post.1"]) as read:
    pair.base.prompt_ids("Why?")
"""


@pytest.mark.slow
def test_editors_know_the_type_of_every_public_name(tmp_path):
    """A script of a user has no type error, and neither its values nor any public name has an unknown type."""
    values = ["pair", "problems", "train", "acts", "taxonomy", "arm", "result", "lens", "read", 'read["resid_post.1"]']
    shown = [*values, *(f"probe.{name}" for name in dir(probe))]
    (tmp_path / "script.py").write_text(SCRIPT + "".join(f"reveal_type({each})\n" for each in shown))
    config = {"extraPaths": [str(ROOT)], "typeCheckingMode": "standard", "include": ["script.py"]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    checker = [Path(sys.executable).with_name("basedpyright"), "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run([*checker, "-p", tmp_path], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["generalDiagnostics"]
    assert [each["message"] for each in found if each["severity"] != "information"] == []
    revealed = [each["message"] for each in found if each["message"].startswith("Type of")]
    assert len(revealed) == len(shown)
    assert [message for message in revealed if "Unknown" in message or '" is "Any"' in message] == []

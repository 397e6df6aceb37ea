"""What `probe doctor` finds, also where packages are broken or absent."""

import importlib
import json
import os
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from probe.pipeline.doctor.diagnosis import Diagnosis, Fact, guarded
from probe.pipeline.doctor.doctor import doctor
from probe.pipeline.doctor.machine import disk, environment, hub
from probe.pipeline.doctor.packages import packages

#: Runs `probe doctor --json` where some modules cannot be imported.
BROKEN = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise {error}
        return None

sys.meta_path.insert(0, Blocked())
sys.argv = ["probe", "doctor", "--json"]
from probe.cli import main
main()
"""


def diagnosed(blocked: tuple[str, ...], error: str = 'ImportError("libtorch_cpu.so: undefined symbol: broken")'):
    """The facts by name and the exit code, where some modules cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-c", BROKEN.format(blocked=blocked, error=error)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.stderr == ""
    facts = {fact["name"]: fact for fact in json.loads(done.stdout)["facts"]}
    return facts, done.returncode


def test_a_torch_that_cannot_be_imported_is_said_and_the_rest_is_still_looked_at():
    facts, code = diagnosed(("torch",))
    assert code == 1
    assert facts["torch"]["state"] == "wrong"
    assert "undefined symbol" in facts["torch"]["found"]
    assert "pip install" in facts["torch"]["fix"]
    assert "torch cannot be imported" in facts["GPU"]["found"]
    assert facts["memory"]["state"] == facts["sae-lens"]["state"] == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["huggingface_hub", "psutil", "packaging", "transformers"])
def test_no_other_broken_package_ends_the_doctor(name):
    facts, code = diagnosed((name,), "OSError('a shared library is missing')")
    assert code == 1
    assert any("a shared library is missing" in fact["found"] for fact in facts.values())
    assert facts["models (HF_HOME)"]["state"] == "ok"


def test_absent_and_old_packages_are_wrong_and_absent_extras_are_not(monkeypatch):
    from probe.pipeline.doctor import packages as module

    own = module.metadata.version

    def version(name: str) -> str:
        if name in ("peft", "gguf"):
            raise module.metadata.PackageNotFoundError(name)
        return "4.0.0" if name == "transformer-lens" else own(name)

    monkeypatch.setattr(module.metadata, "version", version)
    facts = {fact.name: fact for fact in [*module.packages(), *module.extras()]}
    assert (facts["peft"].state, facts["peft"].found) == ("wrong", "not installed")
    assert facts["transformer-lens"].state == "wrong"
    assert "4.0.0, outside the supported <4,>=3.9" in facts["transformer-lens"].found
    assert "pip install 'transformer-lens<4,>=3.9'" in facts["transformer-lens"].fix
    assert facts["[gguf]"].state == "absent"
    assert facts["[gguf]"].fix == "pip install 'probe-interp[gguf]'"
    assert facts["nnsight"].state == "ok"


def test_this_installation_is_in_order():
    assert [fact for fact in packages() if fact.state != "ok"] == []


@pytest.mark.parametrize("module", ["quux.py", "quux/__init__.py", "foo_bar/__init__.py"])
def test_the_files_of_a_package_are_found_under_any_import_name(module, tmp_path, monkeypatch):
    from probe.pipeline.doctor import packages as doctor

    about = tmp_path / "foo_bar-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: foo-bar\nVersion: 1.0\n")
    (about / "RECORD").write_text(f"{module},,\nfoo_bar-1.0.dist-info/METADATA,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor, "_requirements", lambda: [Requirement("foo-bar>=1")])
    assert {fact.name: fact.state for fact in packages()}["foo-bar"] == "wrong"
    (tmp_path / module).parent.mkdir(exist_ok=True)
    (tmp_path / module).touch()
    importlib.invalidate_caches()
    assert all(fact.state == "ok" for fact in packages())


def test_secrets_are_never_shown(monkeypatch):
    for name in ("HF_TOKEN", "HTTPS_PROXY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "http://me:hunter2@proxy:3128")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:hunter2@mirror.example")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = str(Diagnosis(tuple([*environment(), *hub()])))
    assert "hunter2" not in found
    assert "HF_ENDPOINT=https://mirror.example" in found
    assert "HF_TOKEN (set)" in found


def test_a_full_disk_is_wrong(monkeypatch):
    from probe.pipeline.doctor import machine

    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2e9})())
    assert {fact.state for fact in disk()} == {"wrong"}
    assert all("free some space" in fact.fix and "2.0 GB" in fact.found for fact in disk())


def test_what_cannot_be_looked_at_is_one_fact_in_one_line():
    def look():
        raise OSError("two\nlines")

    [fact] = guarded("machine", "memory", look)
    assert fact.state == "wrong"
    assert fact.found == "cannot be read: OSError: two lines"


def test_the_diagnosis_fits_a_screen_and_shows_itself(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = doctor()
    assert len(str(found).splitlines()) <= 36
    assert found._repr_html_().count("<tr>") == len(found.facts) + 1
    assert found.as_dict()["wrong"] == len(found.wrong)
    wrong = Diagnosis((*found.facts, Fact("disk", "disk <x>", "full", "wrong", "free some space")))
    assert str(wrong).splitlines()[-2].startswith("! disk <x>")
    assert "disk &lt;x&gt;" in wrong._repr_html_()

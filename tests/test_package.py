"""The package as it is installed: quick to import, whole without its extras, and carrying its bundled models."""

import inspect
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import probe

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "sae_lens", "nnsight", "transformer_lens", "plotly", "datasets", "sklearn")
#: Extras, by the name they are imported under.
OPTIONAL = ("reasoning_gym", "gguf", "math_verify", "nbclient", "jupytext", "ipykernel")


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


def test_an_earlier_name_still_works_and_says_what_it_is_called_now():
    with pytest.warns(DeprecationWarning, match="probe.compare is now probe.diff_models"):
        assert probe.compare is probe.diff_models


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No probe attribute lod_pair"):
        probe.lod_pair  # noqa: B018


def test_every_room_imports_without_the_extras():
    rooms = sorted(path.parent.name for path in (ROOT / "probe").glob("*/__init__.py"))
    code = f"import sys\nfor name in {OPTIONAL}: sys.modules[name] = None\n"
    python(code + "\n".join(f"import probe.{room}" for room in rooms))


@pytest.mark.slow
def test_a_wheel_carries_the_bundled_models(tmp_path):
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    bundled = {
        f"probe/_bundled/{path.parent.name}/{path.name}" for path in (ROOT / "artifacts").glob("*/*.safetensors")
    }
    assert bundled <= inside
    assert {"probe/__init__.py", "probe/py.typed", "probe/problems/story/story.py"} <= inside
    assert not [name for name in inside if name.startswith(("tests/", "artifacts/", "notebooks/"))]

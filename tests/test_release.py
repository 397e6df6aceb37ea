"""What is released: the wheel works alone, the sdist builds the same one; citation and changelog name the version."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import probe

ROOT = Path(__file__).parents[1]
#: Kinds of files of ``artifacts/`` that a wheel carries.
BUNDLED = (".json", ".md", ".parquet", ".safetensors", ".yaml")


def ran(command: list, **settings) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **settings)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def built(kind: str, source: Path, folder: Path) -> Path:
    ran([sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder], cwd=source)
    (file,) = folder.iterdir()
    return file


def files_below(folder: Path) -> set[str]:
    """The files that git would not ignore: none that are hidden or compiled."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if not any(part.startswith((".", "__pyc")) for part in path.parts)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return built("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.mark.slow
def test_a_wheel_carries_the_package_and_the_bundled_models_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    metadata = f"probe_interp-{probe.__version__}.dist-info/"
    package = {f"probe/{name}" for name in files_below(ROOT / "probe")}
    bundled = {f"probe/_bundled/{name}" for name in files_below(ROOT / "artifacts") if name.endswith(BUNDLED)}
    assert {name for name in inside if not name.startswith(metadata)} == package | bundled
    assert {"probe/py.typed", "probe/models/pairs/orz-1.5b.yaml", "probe/reports/run/page.html.j2"} <= package
    assert {f"probe/_bundled/tiny-rl/{name}" for name in ("model.safetensors", "pair.yaml", "README.md")} <= bundled
    assert {f"{metadata}licenses/{name}" for name in ("LICENSE", "NOTICE")} <= set(inside)
    texts = [name for name in inside if not name.endswith(".safetensors")]
    assert [name for name in texts if re.search(rb"/(home|root|Users)/", inside[name])] == []


@pytest.mark.slow
def test_an_installed_wheel_finds_its_models_outside_the_repository(wheel, tmp_path):
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    ran([*pip, "--target", target, wheel])
    outside = {"cwd": elsewhere, "env": {**os.environ, "PYTHONPATH": str(target)}}
    code = "import probe; pair = probe.load_pair('tiny-rl', device='cpu'); print(probe.__file__); print(pair)"
    place, pair = ran([sys.executable, "-c", code], **outside).splitlines()
    assert Path(place).is_relative_to(target)
    assert pair.startswith("Pair(tiny-rl")
    listed = ran([sys.executable, target / "bin" / "probe", "pairs"], **outside)
    assert {"tiny-rl", "tiny-sft", "orz-1.5b"} <= set(listed.split())


@pytest.mark.slow
def test_the_sdist_builds_the_same_wheel_and_holds_no_results(wheel, tmp_path):
    archive = built("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    assert built("wheel", unpacked, tmp_path / "again").read_bytes() == wheel.read_bytes()
    names = {path.name for path in unpacked.iterdir()}
    assert {"CHANGELOG.md", "CITATION.cff", "LICENSE", "NOTICE", "constraints.txt", "docs", "tests"} <= names
    assert names.isdisjoint({".ci", ".venv", "dist", "runs", "shared"})


def test_the_citation_is_complete_and_of_this_version():
    """The keys that the schema of the Citation File Format 1.2.0 requires."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert cited["message"] and cited["title"]
    assert cited["authors"] == [{"name": "The probe authors"}]
    assert (cited["version"], cited["license"]) == (probe.__version__, "Apache-2.0")
    assert all(each["type"] == "article" and each["title"] and each["authors"] for each in cited["references"])
    papers = {each["url"].rsplit("/", 1)[1] for each in cited["references"]}
    assert papers == {"2510.07364", "2506.09967", "2505.13308"}


def test_the_changelog_begins_with_this_version_and_its_date():
    newest = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert newest and newest[1] == f"{probe.__version__} - {cited['date-released']}"

"""The code and the commands of the README work."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
FENCES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
PAGES = ["anchors", "baselines", "circuits", "diff", "features", "heads", "lenses", "notebooks", "sampling", "traces"]


@pytest.mark.slow
def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(FENCES) >= 2
    names: dict = {}
    for fence in FENCES:
        exec(compile(fence, "README.md", "exec"), names)
    assert names["taxonomy"].n_behaviours >= 4
    prompt = names["batch"]["input_ids"]
    assert names["acts"]["pattern.1"].shape[-2:] == (prompt.shape[1], prompt.shape[1])
    assert names["steered"].shape[1] == prompt.shape[1] + 40
    assert next(names["batches"]).shape == (4, names["thinking"].d_model)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_python_of_a_page_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / f"{name}.md").read_text()
    (fence,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(fence, f"docs/{name}.md", "exec"), {})


def test_commands_of_the_readme_exist():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_ci_runs_the_readmes_test_command():
    script = (Path(__file__).parents[1] / ".ci" / "run").read_text()
    assert "make test\n" in script
    assert "make lint\n" in script

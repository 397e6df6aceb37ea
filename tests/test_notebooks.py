"""Notebooks run from top to bottom, equal the scripts beside them, and are kept with their outputs."""

import base64
import io
import os
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from PIL import Image

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@each_notebook
def test_notebook_and_script_are_the_same(path):
    script = jupytext.read(path.with_suffix(".py"))
    notebook = nbformat.read(path, as_version=4)
    cells = [[(cell.cell_type, cell.source) for cell in each.cells] for each in (script, notebook)]
    assert cells[0] == cells[1], "run: make notebooks"


@each_notebook
def test_a_notebook_is_kept_with_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run: make notebooks"
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 2 and len(outputs) >= len(code) // 2
    for picture in pictures:
        width, height = Image.open(io.BytesIO(base64.b64decode(picture))).size
        assert width > 400 and 20 < height <= 1000
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert kinds <= {"image/png", "text/html", "text/plain"}, "only what is seen without scripts"


@each_notebook
def test_a_notebook_says_nothing_of_the_machine_it_ran_on(path):
    said = path.read_text(encoding="utf-8")
    assert not re.search(r"""[\s"'(=;]/(home|root|tmp|work|Users|var|opt|usr)/""", said)
    assert not re.search(r"iopub|shell\.execute_reply|\d{4}-\d\d-\d\dT", said), "no times"


def test_the_notebooks_are_small():
    sizes = {path.stem: path.stat().st_size for path in NOTEBOOKS}
    assert max(sizes.values()) < 400_000 and sum(sizes.values()) < 2_500_000, sizes


@each_notebook
def test_a_notebook_begins_with_what_it_gives_and_takes_a_model_by_one_variable(path):
    first, code = nbformat.read(path, as_version=4).cells[:2]
    _, _, promised = first.source.partition("## What you will have in five minutes\n")
    assert 3 <= len(re.findall(r"^- ", promised, re.MULTILINE)) <= 5
    named = re.findall(r"^(MODEL|PAIR) = ", code.source, re.MULTILINE)
    assert len(named) == 1 and f"`{named[0]}`" in promised


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@each_notebook
@pytest.mark.long
def test_notebook_runs(path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=path.parent)

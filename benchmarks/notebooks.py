"""Runs the notebooks and stores their outputs in them: ``python -m benchmarks.notebooks [NAME ...]``.

GitHub and most other viewers run no script and drop styles. So a figure, and HTML that brings a style or a script, is
stored as a picture, which Chromium takes; tables stay HTML. What differs between two runs or two machines, such as
times, random cell ids and the folder of the clone, is not stored.
"""

import base64
import io
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jupytext
import nbformat
import plotly.graph_objects as go
from nbclient import NotebookClient
from PIL import Image, ImageChops
from plotly.offline import get_plotlyjs

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PLOTLY, HTML, PNG, TEXT = "application/vnd.plotly.v1+json", "text/html", "image/png", "text/plain"
WIDTH, HEIGHT = 860, 1000
"""The size of the page, in pixels; what is below it, such as the end of a long list, is not in the picture."""
COLOURS = 64
"""The number of colours of a picture, which keeps it small."""
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def executed(script: Path) -> Any:
    """The notebook of a script, with the outputs of a run from top to bottom."""
    notebook = jupytext.read(script)
    os.environ |= {"PLOTLY_RENDERER": "plotly_mimetype", "OMP_NUM_THREADS": "1"}
    NotebookClient(notebook, timeout=1800, kernel_name="python3", record_timing=False).execute(cwd=script.parent)
    return notebook


def keep_outputs(notebook: Any) -> None:
    """Leave in a notebook only what is stored."""
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [each for each in map(stored, cell.outputs) if each is not None]
    notebook.metadata = nbformat.from_dict(METADATA)


def stored(output: Any) -> Any:
    """An output as it is stored; None for progress bars and warnings."""
    if output.output_type == "stream":
        output.text = without_places(output.text)
        return output if output.name == "stdout" else None
    data = output.data
    if PLOTLY in data:
        figure = go.Figure(data[PLOTLY]["data"], data[PLOTLY]["layout"])
        title = re.sub("<.*?>", "", data[PLOTLY]["layout"].get("title", {}).get("text") or "")
        page = figure.to_html(include_plotlyjs="plotly.js", config={"displayModeBar": False}, default_height=450)
        output.data = {PNG: picture(page), TEXT: f"figure: {title}" if title else "figure"}
    elif re.search("<(script|style|svg)|style=", data.get(HTML, "")):
        page = f'<!doctype html><meta charset="utf-8"><style>{LOOK}</style><body>{data[HTML]}<script>{OPENED}</script>'
        output.data = {PNG: picture(page), TEXT: without_places(data[TEXT])}
    else:
        output.data = {kind: without_places(said) for kind, said in data.items()}
    output.metadata = {}
    return output


LOOK = """
body { font: 13px system-ui, sans-serif; margin: 8px; background: #fff; color: #111 }
table { border-collapse: collapse } td, th { padding: 2px 8px; text-align: left } caption { text-align: left }
"""
OPENED = """
const trace = document.querySelector("details.trace"), open = () => {
  for (const fold of trace ? [trace, ...trace.querySelectorAll("details")] : []) fold.open = true;
};
open(); setTimeout(open, 500);
"""
"""Opens the first trace of a list, and after its script has filled it, what is folded in it."""


def without_places(said: str) -> str:
    """A text without the folder of the clone, the names of temporary folders, and the codes of a terminal."""
    return re.sub(r"/tmp/\w+", "FOLDER", re.sub(r"\x1b\[[\d;]*m", "", said.replace(f"{ROOT}/", "")))


def picture(page: str) -> str:
    """What Chromium shows of a page, as a PNG in base64."""
    assert CHROMIUM
    with TemporaryDirectory() as folder:
        html, png = Path(folder, "page.html"), Path(folder, "page.png")
        html.write_text(page, encoding="utf-8")
        Path(folder, "plotly.js").write_text(get_plotlyjs(), encoding="utf-8")
        look = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=10000"]
        size = f"--window-size={WIDTH},{HEIGHT}"
        subprocess.run([CHROMIUM, *look, size, f"--screenshot={png}", html.as_uri()], capture_output=True, check=True)
        with Image.open(png) as image:
            seen = image.convert("RGB")
    box = ImageChops.difference(seen, Image.new("RGB", seen.size, "white")).getbbox()
    assert box, "the page is empty"
    kept = seen.crop((0, max(0, box[1] - 8), seen.width, box[3] + 8)).quantize(COLOURS, dither=Image.Dither.NONE)
    file = io.BytesIO()
    kept.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main() -> None:
    assert CHROMIUM, "pictures need Chromium: apt-get install chromium"
    names = sys.argv[1:] or sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    for name in names:
        began = _cpu_seconds()
        notebook = executed(NOTEBOOKS / f"{name}.py")
        seconds = _cpu_seconds() - began
        keep_outputs(notebook)
        path = NOTEBOOKS / f"{name}.ipynb"
        nbformat.write(notebook, path)
        print(f"{name}: {seconds:.0f} processor seconds, {path.stat().st_size / 1000:.0f} kB", flush=True)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()

"""The pictures of the README: one answer of the base model and the same answer steered, and the top of a report.

``python -m benchmarks.pictures runs/demo/tiny-rl`` writes ``docs/pictures/*-light.*`` and ``*-dark.*`` from a run, by
default that of ``probe demo``. The report is photographed by Chromium, and left out where it is not installed.
"""

import subprocess
import sys
from pathlib import Path

from PIL import Image

from benchmarks.notebooks import CHROMIUM
from probe.reports import trace_picture

OUT = Path("docs/pictures")


def main() -> None:
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo/tiny-rl")
    OUT.mkdir(parents=True, exist_ok=True)
    for name, dark in (("light", False), ("dark", True)):
        path = OUT / f"steered-{name}.svg"
        path.write_text(trace_picture(run, dark=dark), encoding="utf-8")
        print(path)
        if CHROMIUM is not None:
            print(photographed(CHROMIUM, run / "report.html", OUT / f"report-{name}.png", dark))


def photographed(browser: str, page: Path, path: Path, dark: bool) -> Path:
    """Photograph the top of a page."""
    how = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=6000"),
        *("--window-size=1200,1180", f"--blink-settings=preferredColorScheme={0 if dark else 1}"),
    )
    command = [browser, *how, f"--screenshot={path.resolve()}", page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)  # a third of the size
    return path


if __name__ == "__main__":
    main()

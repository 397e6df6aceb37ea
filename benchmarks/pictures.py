"""The picture of the README: one answer of the base model, and the same answer steered.

``python -m benchmarks.pictures runs/demo/tiny-rl`` writes ``docs/pictures/steered-light.svg`` and ``steered-dark.svg``
from a run, by default that of ``probe demo``.
"""

import sys
from pathlib import Path

from probe.reports import trace_picture

OUT = Path("docs/pictures")


def main() -> None:
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo/tiny-rl")
    OUT.mkdir(parents=True, exist_ok=True)
    for name, dark in (("light", False), ("dark", True)):
        path = OUT / f"steered-{name}.svg"
        path.write_text(trace_picture(run, dark=dark), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()

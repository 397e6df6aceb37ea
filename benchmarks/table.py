"""What every benchmark shares: interleaved rounds, medians, one table and one JSON file of ratios."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One comparison: ``ratio`` of ``what`` to ``against``; ``goal`` may be None where there is none."""

    what: str
    against: str
    ratio: float
    goal: float | None
    better: str


def medians(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each side; sides take turns, so that a busy machine slows all of them alike."""
    for side in sides.values():
        side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in seconds.items()}


def report(name: str, rows: list[Row]) -> None:
    """Print the table and write ``benchmarks/results/NAME.json``."""
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "against", "ratio", "goal", title=name)
    for row in rows:
        goal = "" if row.goal is None else f"{'≥' if row.better == 'higher' else '≤'} {row.goal:.2f}"
        table.add_row(row.what, row.against, f"{row.ratio:.2f}", goal)
    Console().print(table)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    RESULTS.mkdir(exist_ok=True)
    body = {"name": name, "machine": machine, "rows": [asdict(row) for row in rows]}
    (RESULTS / f"{name}.json").write_text(json.dumps(body, indent=1) + "\n")

"""Shared by all benchmarks: interleaved rounds, medians, and one table and JSON file of ratios.

``--cpu`` measures processor time instead of wall time, which is steadier on a busy machine; use one thread with it.
"""

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
CLOCK = "processor" if "--cpu" in sys.argv else "wall"


@dataclass(frozen=True)
class Row:
    """One comparison: the ratio of ``what`` to ``against``, its goal (None if there is none), and which is better."""

    what: str
    against: str
    ratio: float
    goal: float | None
    better: str


def medians(sides: Mapping[str, Callable[[], object]], rounds: int, *, warm: bool = False) -> dict[str, float]:
    """Measure the median seconds of each side. Sides take turns, so that a busy machine slows all of them equally.

    Args:
        sides: the functions to time, by name.
        rounds: number of timed calls of each.
        warm: whether each has already run; otherwise each is first called once untimed.
    """
    if not warm:
        for side in sides.values():
            side()
    now = time.process_time if CLOCK == "processor" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            began = now()
            side()
            seconds[name].append(now() - began)
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
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {CLOCK} time"
    RESULTS.mkdir(exist_ok=True)
    body = {"name": name, "machine": machine, "rows": [asdict(row) for row in rows]}
    (RESULTS / f"{name}.json").write_text(json.dumps(body, indent=1) + "\n")

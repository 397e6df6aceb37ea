"""Work on many items, saved to disk part by part, so that a killed process loses at most one part."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from tqdm.auto import tqdm

from probe.config import FIX, read_as
from probe.errors import ProbeError
from probe.files import write_json


class _Part(TypedDict):
    seconds: float
    rows: dict[str, dict[str, Any]]


def in_stream(
    n: int,
    work: Callable[[Sequence[int]], Iterable[tuple[int, dict[str, Any]]]],
    *,
    part: int,
    name: str,
    folder: str | Path | None = None,
    progress: bool = False,
) -> tuple[list[dict[str, Any]], float]:
    """Compute one row for each of ``n`` items that may finish in any order.

    Args:
        n: the number of items, which are numbered from 0.
        work: takes the missing items and yields each with its row, which JSON can store, as soon as it is done.
        part: the number of rows in a file.
        name: the label of the progress bar.
        folder: keeps the finished parts, so that a later call with the same arguments computes only missing items; None
            keeps nothing.
        progress: whether a progress bar is shown.

    Returns:
        The rows in the order of the items, and the seconds that the work took in all calls together.
    """
    folder = None if folder is None else Path(folder)
    rows: dict[int, dict[str, Any]] = {}
    seconds = 0.0
    for kept in sorted(folder.glob("part-*.json")) if folder is not None else ():
        done = read_as(_Part, kept)
        if not all(item.isdecimal() for item in done["rows"]):
            raise ProbeError(f"{kept} has rows of unknown items; {FIX}")
        rows |= {int(item): row for item, row in done["rows"].items()}
        seconds += done["seconds"]
    missing = [item for item in range(n) if item not in rows]
    bar = tqdm(total=n, initial=n - len(missing), desc=name, unit="problem", disable=not progress)
    fresh: dict[int, dict[str, Any]] = {}
    began = time.perf_counter()
    for item, row in work(missing) if missing else ():
        fresh[item] = row
        bar.update()
        if len(fresh) == part or len(rows) + len(fresh) == n:
            took = time.perf_counter() - began
            if folder is not None:  # named by an item that no other part contains
                write_json(folder / f"part-{min(fresh):06d}.json", {"seconds": took, "rows": fresh})
            rows, fresh, seconds, began = rows | fresh, {}, seconds + took, time.perf_counter()
    bar.close()
    return [rows[item] for item in range(n)], seconds

"""Work on many items, saved to disk part by part, so that a killed process loses at most one part."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypedDict

from tqdm.auto import tqdm

from probe.config import FIX, read_as
from probe.engine.kept import KeptFolder, Key, kept
from probe.errors import ProbeError
from probe.files import write_json


class _Part(TypedDict):
    seconds: float
    rows: dict[str, dict[str, Any]]


PARTS = "part-*.json"
"""The files in which :func:`in_stream` keeps rows."""

Rows = dict[int, dict[str, Any]]


def in_stream(
    n: int,
    work: Callable[[Sequence[int]], Iterable[tuple[int, dict[str, Any]]]],
    *,
    part: int,
    name: str,
    key: Callable[[], Key],
    folder: str | Path | None = None,
    progress: bool = False,
) -> tuple[list[dict[str, Any]], float]:
    """Compute one row for each of ``n`` items that may finish in any order.

    Args:
        n: the number of items, which are numbered from 0.
        work: takes the missing items and yields each with its row, which JSON can store, as soon as it is done.
        part: the number of rows in a file.
        name: the label of the progress bar.
        key: gives everything that the rows depend on, in values that JSON can store; called if there is a folder.
        folder: keeps the finished parts, so that a later call with the same arguments computes only missing items; None
            keeps nothing.
        progress: whether a progress bar is shown.

    Returns:
        The rows in the order of the items, and the seconds that the work took in all calls together.

    Raises:
        ProbeError: if the folder keeps rows of another key, another process writes into it, or a part is damaged.
    """
    home = kept(folder, key, PARTS)
    rows, seconds = ({}, 0.0) if home is None else _read(home, n)
    if len(rows) < n:
        with home or nullcontext():
            if home is not None:  # again: another process may have ended since
                rows, seconds = _read(home, n)
            rows, took = _do(n, work, rows, part=part, name=name, home=home, progress=progress)
            seconds += took
    return [rows[item] for item in range(n)], seconds


def _do(
    n: int,
    work: Callable[[Sequence[int]], Iterable[tuple[int, dict[str, Any]]]],
    rows: Rows,
    *,
    part: int,
    name: str,
    home: KeptFolder | None,
    progress: bool,
) -> tuple[Rows, float]:
    """Compute the missing rows and return all of them, and the seconds that it took."""
    missing = [item for item in range(n) if item not in rows]
    bar = tqdm(total=n, initial=n - len(missing), desc=name, unit="problem", disable=not progress)
    fresh: Rows = {}
    seconds, began = 0.0, time.perf_counter()
    for item, row in work(missing) if missing else ():
        fresh[item] = row
        bar.update()
        if len(fresh) == part or len(rows) + len(fresh) == n:
            took = time.perf_counter() - began
            if home is not None:  # named by an item that no other part contains
                write_json(home.folder / f"part-{min(fresh):06d}.json", {"seconds": took, "rows": fresh})
            rows, fresh, seconds, began = rows | fresh, {}, seconds + took, time.perf_counter()
    bar.close()
    return rows, seconds


def _read(home: KeptFolder, n: int) -> tuple[Rows, float]:
    """The rows that are kept, and the seconds that they took."""
    home.check()
    rows: Rows = {}
    seconds = 0.0
    for file in sorted(home.folder.glob(PARTS)):
        done = read_as(_Part, file)
        if not all(item.isdecimal() for item in done["rows"]):
            raise ProbeError(f"{file} has rows of unknown items; {FIX}")
        found = {int(item): row for item, row in done["rows"].items()}
        seconds += done["seconds"]
        rows |= {item: row for item, row in found.items() if item < n}
    return rows, seconds

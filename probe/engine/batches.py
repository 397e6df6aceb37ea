"""Work on many items, kept on disk part by part as it gets done: a process that is killed loses one part at most."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm.auto import tqdm

from probe.files import read_json, write_json

Item = TypeVar("Item")


def in_stream(
    n: int,
    work: Callable[[Sequence[int]], Iterable[tuple[int, dict[str, Any]]]],
    *,
    part: int,
    name: str,
    folder: Path | None = None,
    progress: bool = False,
) -> tuple[list[dict[str, Any]], float]:
    """Have ``n`` items worked on, in whatever order they get done.

    Args:
        work: is given the items that are missing; yields each with its row, which JSON can hold, as soon as it is done.
        part: how many rows are kept together.
        name: what the bar says.
        folder: finished parts are kept here, and a later call with the same arguments does only what is missing.
        progress: show a bar.

    Returns:
        The rows in the order of the items, and the seconds that the work took, whichever process did it.
    """
    rows: dict[int, dict[str, Any]] = {}
    seconds = 0.0
    for kept in sorted(folder.glob("part-*.json")) if folder is not None else ():
        done = read_json(kept)
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
            if folder is not None:  # named by an item that no other part holds
                write_json(folder / f"part-{min(fresh):06d}.json", {"seconds": took, "rows": fresh})
            rows, fresh, seconds, began = rows | fresh, {}, seconds + took, time.perf_counter()
    bar.close()
    return [rows[item] for item in range(n)], seconds


def in_batches(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], list[dict[str, Any]]],
    batch_size: int,
    *,
    name: str,
    folder: Path | None = None,
    progress: bool = False,
) -> tuple[list[dict[str, Any]], float]:
    """The same for work that takes a batch at a time; ``work`` is given some items and gives a row for each."""

    def flow(missing: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            yield from zip(batch, work([items[item] for item in batch]), strict=True)

    return in_stream(len(items), flow, part=batch_size, name=name, folder=folder, progress=progress)

"""Work done batch by batch, each batch kept as soon as it is done: a process that is killed loses one at most."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm.auto import tqdm

from probe._files import read_json, write_json

Item = TypeVar("Item")


def in_batches(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], list[dict[str, Any]]],
    batch_size: int,
    *,
    name: str,
    folder: Path | None = None,
    progress: bool = False,
) -> tuple[list[dict[str, Any]], float]:
    """Work through ``items``.

    Args:
        work: one batch; gives rows that JSON can hold.
        name: what the bar says.
        folder: each finished batch is kept here, and a later call with the same arguments does only what is missing.
        progress: show a bar.

    Returns:
        The rows of all batches, and the seconds that the work took, whichever process did it.
    """
    rows: list[dict[str, Any]] = []
    seconds = 0.0
    for start in tqdm(range(0, len(items), batch_size), desc=name, unit="batch", disable=not progress):
        kept = None if folder is None else folder / f"batch-{start:06d}.json"
        if kept is not None and kept.exists():
            done = read_json(kept)
        else:
            began = time.perf_counter()
            made = work(items[start : start + batch_size])
            done = {"seconds": time.perf_counter() - began, "rows": made}
            if kept is not None:
                write_json(kept, done)
        rows += done["rows"]
        seconds += done["seconds"]
    return rows, seconds

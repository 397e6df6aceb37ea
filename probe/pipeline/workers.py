"""Arms in several processes at once: small models on a CPU leave cores idle that a second process can use."""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

from probe.pipeline.config import RunConfig

if TYPE_CHECKING:
    from probe.pipeline.experiment import Experiment

_experiment: "Experiment | None" = None
"""Of a worker process."""


def run_arms(config: RunConfig, out: Path, names: Sequence[str], *, progress: bool = False) -> None:
    """Run arms of a run whose stages before them are finished; each leaves its result in its folder.

    Args:
        names: arms whose order does not matter. Those of one recipe go to one worker, since they share what is learned.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name[:2] if name.startswith(("v1", "v2")) else name, []).append(name)
    threads = max(1, (os.cpu_count() or 1) // config.workers)
    with ProcessPoolExecutor(
        config.workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(config, out, threads),
    ) as pool:
        futures = [pool.submit(_do, group) for group in groups.values()]
        for future in tqdm(as_completed(futures), total=len(futures), desc="arms", unit="arm", disable=not progress):
            future.result()


def _begin(config: RunConfig, out: Path, threads: int) -> None:
    from probe.pipeline.run import experiment_of

    global _experiment
    torch.set_num_threads(threads)
    _experiment = experiment_of(config, out)


def _do(names: Sequence[str]) -> None:
    assert _experiment is not None
    for name in names:
        _experiment.result(name)

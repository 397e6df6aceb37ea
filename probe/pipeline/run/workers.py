"""Arms in several processes at once: small models on a CPU leave cores idle that a second process can use."""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

from probe.pipeline.run.config import RunConfig

if TYPE_CHECKING:
    from probe.pipeline.run.experiment import Experiment

_experiment: "Experiment | None" = None
"""Of a worker process."""


def run_arms(config: RunConfig, out: Path, names: Sequence[str], *, progress: bool = False) -> None:
    """Run arms of a run whose stages before them are finished; each leaves its result in its folder.

    Args:
        names: arms whose order does not matter. Of one recipe the first goes ahead and learns what they share.
    """
    recipes: dict[str, list[str]] = {}
    for name in names:
        recipes.setdefault(name[:2] if name.startswith(("v1", "v2")) else name, []).append(name)
    threads = max(1, (os.cpu_count() or 1) // config.workers)
    with ProcessPoolExecutor(
        config.workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(config, out, threads),
    ) as pool:
        # The longest recipes first, so that none is left alone at the end.
        after: dict[Future[None], list[str]] = {
            pool.submit(_do, first): rest for first, *rest in sorted(recipes.values(), key=len, reverse=True)
        }
        with tqdm(total=len(names), desc="arms", unit="arm", disable=not progress) as bar:
            while after:
                for done in wait(after, return_when=FIRST_COMPLETED).done:
                    done.result()
                    bar.update()
                    after |= {pool.submit(_do, name): [] for name in after.pop(done)}


def _begin(config: RunConfig, out: Path, threads: int) -> None:
    from probe.pipeline.run.run import experiment_of

    global _experiment
    torch.set_num_threads(threads)
    _experiment = experiment_of(config, out)


def _do(name: str) -> None:
    assert _experiment is not None
    _experiment.result(name)

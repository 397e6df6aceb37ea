"""All arms of a run, one after the other or in several processes: small models on a CPU leave cores idle."""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import lru_cache
from pathlib import Path

import torch
from tqdm.auto import tqdm

from probe.hybrid import ARMS, ArmResult
from probe.pipeline.run.arms import SEED, arm_result, recipe
from probe.pipeline.run.experiment import Experiment


def run_arms(experiment: Experiment) -> dict[str, ArmResult]:
    """Run every arm that the settings name, and the hybrid with the vectors of every further seed.

    Arms that the folder already has are read and returned too.
    """
    config, folder = experiment.config, experiment.folder
    names = _names(experiment)
    arm_result(experiment, "hybrid")  # controls are matched to it
    missing = [name for name in names if not folder.has(f"arms/{name}")]
    if config.workers > 1 and len(missing) > 1:
        _ = experiment.gates  # in a run of an earlier version, which kept none, each process would find them
        _run_in_processes(config.workers, folder.path, missing, experiment.stages.progress)
    return {name: arm_result(experiment, name) for name in names}


def check_arms(experiment: Experiment) -> None:
    """Refuse an arm that cannot be made on this run, before any is decoded.

    Raises:
        ProbeError: for the first such arm.
    """
    for name in _names(experiment):
        check = recipe(name).check
        if check is not None and not experiment.folder.has(f"arms/{name}"):
            check(experiment, name)


def _names(experiment: Experiment) -> list[str]:
    """The arms that the settings name, those that the folder has, and a hybrid for each further seed."""
    kept = [name for name in ARMS if experiment.folder.has(f"arms/{name}")]
    seeds = [f"{SEED}{seed}" for seed in experiment.config.steering.seeds[1:]]
    return list(dict.fromkeys([*experiment.config.hybrid.names, *kept, *seeds]))


def _run_in_processes(workers: int, out: Path, names: Sequence[str], progress: bool) -> None:
    """Run arms in worker processes; each leaves its result in its folder."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(recipe(name).shares or name, []).append(name)
    threads = max(1, (os.cpu_count() or 1) // workers)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:

        def submit(name: str) -> Future[None]:
            return pool.submit(_run_one, out, threads, name)

        # The first arm of a group learns what the others need. The largest groups begin, so that none is left alone
        # at the end.
        after = {submit(first): rest for first, *rest in sorted(groups.values(), key=len, reverse=True)}
        with tqdm(total=len(names), desc="arms", unit="arm", disable=not progress) as bar:
            while after:
                for done in wait(after, return_when=FIRST_COMPLETED).done:
                    done.result()
                    bar.update()
                    after |= {submit(name): [] for name in after.pop(done)}


def _run_one(out: Path, threads: int, name: str) -> None:
    arm_result(_opened(out, threads), name)


@lru_cache(maxsize=1)  # only worker processes call it: each opens the run once for all its arms
def _opened(out: Path, threads: int) -> Experiment:
    torch.set_num_threads(threads)
    return Experiment.open(out, joined=True)

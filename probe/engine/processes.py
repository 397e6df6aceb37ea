"""Workers that are processes of this machine; each has a GPU of its own, if there are GPUs."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing import connection
from typing import Any

from probe.engine.tasks import Task

Begin = Callable[[], Any]
"""Makes what all tasks of a run have in common, once in each worker; hashable, and importable by another process."""


class ProcessWorkers:
    """A pool of processes, which is started again if one of them dies.

    Args:
        n: the number of processes.
        begin: makes what tasks are called with.
    """

    def __init__(self, n: int, begin: Begin) -> None:
        self._n, self._begin = n, begin
        self._running: set[Future[Any]] = set()
        self._pool = self._new()

    def _new(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        number, threads = context.Value("i", 0), max(1, (os.cpu_count() or 1) // self._n)
        return ProcessPoolExecutor(self._n, context, _start, (number, threads))

    def room(self) -> int:
        self._running = {future for future in self._running if not future.done()}
        return self._n - len(self._running)

    def submit(self, task: Task) -> "Future[Any]":
        try:
            future = self._pool.submit(_do, self._begin, task)
        except BrokenProcessPool:  # a process was killed; its tasks have failed, and are tried again
            self._pool.shutdown(wait=False)
            self._pool = self._new()
            future = self._pool.submit(_do, self._begin, task)
        self._running.add(future)
        return future

    def __enter__(self) -> "ProcessWorkers":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _start(number: Any, threads: int) -> None:
    """Prepare a worker process: it ends with its parent, and has a device and its share of the cores."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    if gpus := torch.cuda.device_count():
        with number.get_lock():
            os.environ["LOCAL_RANK"] = str(number.value % gpus)  # the device that "auto" means
            number.value += 1


def _do(begin: Begin, task: Task) -> None:
    task.do(common(begin))


@lru_cache(maxsize=1)  # only worker processes call it: a run's models are loaded once for all tasks
def common(begin: Hashable) -> Any:
    """What the tasks of a run have in common."""
    assert callable(begin)
    return begin()

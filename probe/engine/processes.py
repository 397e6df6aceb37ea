"""Workers that are processes of this machine; each has a GPU of its own, if there are GPUs.

They start with a run's first tasks and stay, with its models loaded, until the run ends. A process in which a task
failed is replaced, because the error may have left it unusable.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import lru_cache
from multiprocessing import connection
from typing import Any

from probe.engine.tasks import Task
from probe.errors import ProbeError

Begin = Callable[[], Any]
"""Builds what all tasks of a run share, once in each worker; hashable, and importable by another process."""


class ProcessWorkers:
    """Processes; one that dies, or in which a task fails, is replaced, and only its own task is lost.

    Args:
        n: the number of processes.
        begin: makes what tasks are called with.
    """

    def __init__(self, n: int, begin: Begin) -> None:
        self._n, self._begin = n, begin
        # A pool for each process, so that the death of one does not break the others.
        self._pools: list[ProcessPoolExecutor | None] = [None] * n
        self._running: list[Future[Any] | None] = [None] * n

    def _free(self) -> list[int]:
        return [at for at, future in enumerate(self._running) if future is None or future.done()]

    def room(self) -> int:
        for at, future in enumerate(self._running):
            if future is not None and future.done() and not isinstance(future.exception(), ProbeError | None):
                # After an error such as a CUDA assert, a process fails at every task, and is therefore always free.
                self._terminate(at)
                self._end(at)
        return len(self._free())

    def submit(self, task: Task) -> "Future[Any]":
        at = self._free()[0]
        pool = self._pools[at] or self._new(at)
        try:
            future = pool.submit(_do, self._begin, task)
        except BrokenProcessPool:  # it has died
            future = self._new(at).submit(_do, self._begin, task)
        self._running[at] = future
        return future

    def _new(self, at: int) -> ProcessPoolExecutor:
        threads = max(1, (os.cpu_count() or 1) // self._n)
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start, (at, threads))
        self._pools[at] = pool
        return pool

    def _end(self, at: int) -> None:
        """End a process, if there is one; the next task there starts another."""
        pool, self._pools[at], self._running[at] = self._pools[at], None, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def _terminate(self, at: int) -> None:
        """Stop a process at whatever it does: its task is made again, and to wait for it could take hours."""
        for process in list((getattr(self._pools[at], "_processes", None) or {}).values()):
            process.terminate()

    def __enter__(self) -> "ProcessWorkers":
        return self

    def __exit__(self, *error: object) -> None:
        # All of them first: a second Ctrl-C may interrupt the waiting below.
        for at in range(self._n) if any(error) else ():
            self._terminate(at)
        for at in range(self._n):
            self._end(at)


def _start(number: int, threads: int) -> None:
    """Prepare a worker process: it ends with its parent, prints to stderr, has a device and its share of cores."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent alone answers it

    def end_with_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    os.dup2(2, 1)  # stdout is the parent's, which may write a JSON document there
    sys.stdout = sys.stderr
    import torch

    torch.set_num_threads(threads)
    if gpus := torch.cuda.device_count():
        os.environ["LOCAL_RANK"] = str(number % gpus)  # the device that "auto" means


def _do(begin: Begin, task: Task) -> None:
    try:
        task.do(common(begin))
    finally:
        free_cache()


def free_cache() -> None:
    """Give cached GPU memory back: until its next task, a worker must not hold memory that others could use.

    Nothing is raised: after a CUDA error this fails too, and must not hide what the task raised.
    """
    import torch

    with suppress(Exception):
        torch.cuda.empty_cache()


@lru_cache(maxsize=1)  # only worker processes call it: a run's models are loaded once for all tasks
def common(begin: Hashable) -> Any:
    """What the tasks of a run have in common."""
    assert callable(begin)
    return begin()

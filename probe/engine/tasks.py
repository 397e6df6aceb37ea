"""Tasks that leave their results in files, and the loop that hands them to workers in other processes."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from probe.errors import ProbeError
from probe.progress import progress_bar

_LOG = logging.getLogger("probe")
ATTEMPTS = 3
"""How many times a task is tried if it fails for any reason but a user's mistake."""
_LOSSES = 10
"""How many times a task is tried if its worker or its machine dies."""
_SILENCE = 60.0
"""Seconds without a worker after which a message says so."""
_LOOK_AGAIN = 5.0
"""Seconds after which the number of workers is asked for again: a machine may have joined."""


@dataclass(frozen=True)
class Task:
    """A piece of work that leaves its result in files.

    Attributes:
        name: names the task in messages and in ``after``.
        do: called in a worker with what the workers of a run have in common, such as loaded models. It must be a
            function of a module (or a partial of one), so that another process can import it; and it may be called
            twice, so it must write the same files each time.
        after: the names of tasks that must finish first.
    """

    name: str
    do: Callable[[Any], object]
    after: tuple[str, ...] = ()


class Lost(Exception):
    """The machine that did a task is gone."""


class LostBefore(Lost):
    """The machine was gone before the task began, which says nothing about the task."""


@runtime_checkable
class Workers(Protocol):
    """Processes that do tasks, one at a time each; the future of a task whose machine is lost raises `Lost`.

    A worker in which a task failed is replaced, unless the error is a `ProbeError`.
    """

    def room(self) -> int:
        """How many more tasks could begin now."""
        ...

    def submit(self, task: Task) -> "Future[Any]":
        """Begin a task."""
        ...


def run_tasks(workers: Workers, tasks: Sequence[Task], *, name: str, progress: bool = False) -> None:
    """Do all tasks. One that fails is tried three times, on any worker; the others go on meanwhile.

    Args:
        workers: do the tasks.
        tasks: those that are ready begin in this order.
        name: the label of the progress bar.
        progress: show a progress bar.

    Raises:
        ProbeError: at once if a task raises one, which is a mistake of the user; at the end if tasks are left open.
    """
    left = {task.name: task for task in tasks}
    running: dict[Future[Any], Task] = {}
    failures: Counter[str] = Counter()
    losses: Counter[str] = Counter()
    said: dict[str, str] = {}
    idle = time.monotonic()
    with progress_bar(total=len(tasks), desc=name, unit="task", show=progress) as bar:
        while True:
            undone = {*left, *(task.name for task in running.values())}
            hopeless = {each for each in left if failures[each] >= ATTEMPTS or losses[each] >= _LOSSES}
            ready = [task for task in left.values() if not (task.name in hopeless or undone & {*task.after})]
            for task in ready[: workers.room()]:
                running[workers.submit(left.pop(task.name))] = task
            if not running and not ready:
                break
            if running:
                idle = time.monotonic()
            else:
                time.sleep(0.1)
                if time.monotonic() - idle > _SILENCE:
                    _LOG.warning("%s: waiting for a worker; no machine has a free GPU or core", name)
                    idle = time.monotonic()
            for future in wait(running, _LOOK_AGAIN, FIRST_COMPLETED).done:
                task = running.pop(future)
                error = future.exception()
                if isinstance(error, ProbeError):
                    raise error
                if error is None:
                    bar.update()
                    continue
                left[task.name] = task
                if isinstance(error, LostBefore):
                    continue
                (losses if isinstance(error, Lost) else failures)[task.name] += 1
                said[task.name] = one_line(error)
                _LOG.warning("%s failed (%s)", task.name, said[task.name])
    if left:
        first = next((each for each in left if each in said), next(iter(left)))
        raise ProbeError(
            f"{len(left)} of {len(tasks)} tasks are unfinished, first {first} ({said.get(first, 'not started')}); run "
            "the same command again, with any engine, to resume"
        )


def one_line(error: BaseException) -> str:
    """The kind of an error and the last line that it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1][:300]}" if lines else type(error).__name__

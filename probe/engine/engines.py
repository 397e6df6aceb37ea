"""The engines by name: ``here``, ``processes:N`` and ``ray[:ADDRESS]``. An engine only says where tasks run.

Workers start with the first tasks of a run and stay until the run ends, so that each loads the models once.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.engine.processes import Begin, ProcessWorkers
from probe.engine.tasks import Task, Workers, run_tasks
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.engine.ray_cluster import RayWorkers


@dataclass(frozen=True)
class Engine:
    """Where a run's tasks are executed.

    Attributes:
        kind: ``here``, ``processes`` or ``ray``.
        n: the number of processes.
        address: the address of the head of a Ray cluster; "" for one of this machine.
    """

    kind: str = "here"
    n: int = 1
    address: str = ""

    @property
    def is_here(self) -> bool:
        """Whether the process that asks does all the work itself."""
        return self.kind == "here"

    def open(self, begin: Begin, folder: Path) -> "OpenEngine":
        """Make the workers of a run available; they start with its first task.

        Args:
            begin: makes what tasks are called with, once in each worker.
            folder: the folder that the tasks write to.
        """
        return OpenEngine(self, begin, folder)


class OpenEngine:
    """The workers of a run. They start with the first task and stay until the block ends.

    Args:
        engine: where they are.
        begin, folder: as in :meth:`Engine.open`.
    """

    def __init__(self, engine: Engine, begin: Begin, folder: Path) -> None:
        self._engine, self._begin, self._folder = engine, begin, folder
        self._open = ExitStack()
        self._workers: Workers | None = None

    def run(self, tasks: Sequence[Task], *, name: str, progress: bool = False) -> None:
        """Do tasks elsewhere; nothing is done if the engine is ``here``.

        Args:
            tasks: what is to be done.
            name: the label of the progress bar.
            progress: show a progress bar.

        Raises:
            ProbeError: for a mistake of the user in a task, or if tasks are left open.
        """
        if self._engine.is_here or not tasks:
            return
        if self._workers is None:
            self._workers = self._open.enter_context(self._started())
        run_tasks(self._workers, tasks, name=name, progress=progress)

    def _started(self) -> "ProcessWorkers | RayWorkers":
        if self._engine.kind == "processes":
            return ProcessWorkers(self._engine.n, self._begin)
        from probe.engine.ray_cluster import RayWorkers

        return RayWorkers(self._engine.address, self._begin, self._folder)

    def __enter__(self) -> "OpenEngine":
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)


def engine_of(said: str) -> Engine:
    """Read the name of an engine.

    >>> engine_of("processes:2")
    Engine(kind='processes', n=2, address='')
    >>> engine_of("ray:10.0.0.1:6379").address
    '10.0.0.1:6379'

    Raises:
        ProbeError: if it is not the name of an engine.
    """
    kind, _, rest = said.partition(":")
    if kind == "here" and not rest:
        return Engine()
    if kind == "processes" and rest.isdecimal() and int(rest) > 0:
        return Engine(kind, int(rest))
    if kind == "ray":
        return Engine(kind, address=rest)
    raise ProbeError(f"engine is {said!r}; give here, processes:N (N processes of this machine) or ray[:ADDRESS]")

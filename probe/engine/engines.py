"""The engines by name: ``here``, ``processes:N`` and ``ray[:ADDRESS]``. An engine only says where tasks run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probe.engine.processes import Begin, ProcessWorkers
from probe.engine.tasks import Task, run_tasks
from probe.errors import ProbeError


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

    def run(self, begin: Begin, tasks: Sequence[Task], *, folder: Path, name: str, progress: bool = False) -> None:
        """Do tasks elsewhere; nothing is done if the engine is ``here``.

        Args:
            begin: makes what tasks are called with, once in each worker.
            tasks: what is to be done.
            folder: the folder that the tasks write to.
            name: the label of the progress bar.
            progress: show a progress bar.

        Raises:
            ProbeError: for a mistake of the user in a task, or if tasks are left open.
        """
        if self.is_here or not tasks:
            return
        if self.kind == "processes":
            with ProcessWorkers(min(self.n, len(tasks)), begin) as workers:
                run_tasks(workers, tasks, name=name, progress=progress)
            return
        from probe.engine.ray_cluster import RayWorkers

        with RayWorkers(self.address, begin, folder) as workers:
            run_tasks(workers, tasks, name=name, progress=progress)


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

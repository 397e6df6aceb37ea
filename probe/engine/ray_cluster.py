"""Workers that are actors of a Ray cluster: on this machine, or on all machines that have joined.

They start with a run's first tasks and stay, with its models loaded, until the run ends. An actor in which a task
failed is replaced.
"""

import os
import socket
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from probe.engine.processes import Begin, common, free_cache
from probe.engine.tasks import Lost, LostBefore, Task, one_line
from probe.errors import ProbeError

_FAILED = 10
"""How many workers in a row may fail to begin."""
_PLACE = ".cluster"
"""A file in the folder of a run by which each machine shows that it sees that folder."""


class RayWorkers:
    """Actors, each with one GPU, or one core where the cluster has no GPU.

    The task of an actor whose machine is lost is handed to another one. A machine that joins gets actors.

    Args:
        address: the address of the cluster's head; "" for the cluster of this machine, or else a new one.
        begin: makes what tasks are called with.
        folder: the folder of the run, which every machine must see.

    Raises:
        ProbeError: if Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str, begin: Begin, folder: Path) -> None:
        self._ray: Any = _import_ray()
        self._began = not self._ray.is_initialized()
        if self._began:
            _connect(self._ray, address)
        self._folder, self._begin = folder.resolve(), begin
        self._token = os.urandom(8).hex()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _PLACE).write_text(self._token, encoding="utf-8")
        self._gpus = 1 if self._ray.cluster_resources().get("GPU") else 0
        kind = self._ray.remote(num_cpus=1, num_gpus=self._gpus)
        self._actor = kind(_Actor)
        self._failed, self._why = 0, ""
        self._dead: list[Any] = []
        self._idle: list[Any] = []
        self._all: list[Any] = []

    def room(self) -> int:
        while self._dead:  # each may still hold its GPU; Ray must not be asked from its own callbacks
            with suppress(Exception):
                self._ray.kill(self._dead.pop())
        if self._failed > _FAILED:
            raise ProbeError(f"no worker begins on the Ray cluster ({self._why}); install probe on every machine")
        there = int(self._ray.cluster_resources().get("GPU" if self._gpus else "CPU", 0))
        for _ in range(there - len(self._all)):
            self._add()
        return len(self._idle)

    def _add(self) -> None:
        """Ask for an actor, which counts once it has begun: until a machine has room for it, it does nothing."""
        actor = self._actor.remote(self._begin, str(self._folder), self._token)
        self._all.append(actor)

        def begun(answer: "Future[Any]") -> None:
            error = answer.exception()
            if error is None:
                self._failed = 0
                self._idle.append(actor)
            else:
                self._failed += 1
                self._why = one_line(error)
                self._all.remove(actor)

        actor.is_there.remote().future().add_done_callback(begun)

    def submit(self, task: Task) -> "Future[Any]":
        actor = self._idle.pop(0)
        future: Future[Any] = Future()
        begun = actor.is_there.remote().future()  # answered before the task begins, unless the actor died while idle

        def done(answer: "Future[Any]") -> None:
            error = answer.exception()
            own = getattr(error, "cause", None)  # a task's own error comes wrapped in one that has both types
            found = own if isinstance(own, Exception) else error
            if isinstance(error, self._ray.exceptions.RayActorError):
                began = begun.done() and begun.exception() is None
                found = (Lost if began else LostBefore)("its worker or its machine died")
            if isinstance(found, ProbeError | None):
                self._idle.append(actor)
            else:  # an error such as a CUDA assert makes all later tasks of the actor fail
                self._all.remove(actor)
                self._dead.append(actor)
            if found is None:
                future.set_result(None)
            else:
                future.set_exception(found)

        actor.do.remote(task).future().add_done_callback(done)
        return future

    def __enter__(self) -> "RayWorkers":
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(Exception):  # the head may be gone
            for actor in [*self._all, *self._dead]:
                self._ray.kill(actor)
        (self._folder / _PLACE).unlink(missing_ok=True)
        if self._began:
            self._ray.shutdown()


class _Actor:
    """Does tasks in a process of its own."""

    def __init__(self, begin: Begin, folder: str, token: str) -> None:
        self._begin, self._folder, self._token = begin, Path(folder), token

    def is_there(self) -> None:
        """Answer once the actor has begun."""

    def do(self, task: Task) -> None:
        place, seen = self._folder / _PLACE, False
        with suppress(OSError):
            seen = place.read_text(encoding="utf-8") == self._token
        if not seen:
            raise ProbeError(
                f"{socket.gethostname()} does not see {self._folder}: give --out a folder that all machines share, "
                "under the same path"
            )
        try:
            task.do(common(self._begin))
        finally:
            free_cache()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ProbeError("the engine 'ray' needs Ray; install it: pip install 'probe-interp[ray]'") from None
    return ray


def _connect(ray: Any, address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "error"}
    # Workers are as urgent as the process that asks for them, and nothing is reported to anybody.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        try:
            ray.init(address=address or "auto", **quiet)
        except ConnectionError:
            if address:
                raise
            ray.init(include_dashboard=False, **quiet)  # no cluster on this machine yet
    except Exception as error:  # Ray raises errors of many kinds, some of them plain
        raise ProbeError(
            f"no Ray cluster at {address or 'this machine'} ({one_line(error)}); start one there: ray start --head, or "
            "give --engine processes:N"
        ) from None

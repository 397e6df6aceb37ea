"""Workers that are actors of a Ray cluster: on this machine, or on all machines that have joined."""

import os
import socket
import tempfile
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from probe.engine.processes import Begin, common
from probe.engine.tasks import Lost, Task
from probe.errors import ProbeError

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
        self._idle: list[Any] = []
        self._all: list[Any] = []

    def room(self) -> int:
        there = int(self._ray.cluster_resources().get("GPU" if self._gpus else "CPU", 0))
        for _ in range(there - len(self._all)):
            self._add()
        return len(self._idle)

    def _add(self) -> None:
        """Ask for an actor, which counts once it has begun: until a machine has room for it, it does nothing."""
        actor = self._actor.remote(self._begin, str(self._folder), self._token)
        self._all.append(actor)

        def begun(answer: "Future[Any]") -> None:
            if answer.exception() is None:
                self._idle.append(actor)
            else:
                self._all.remove(actor)

        actor.is_there.remote().future().add_done_callback(begun)

    def submit(self, task: Task) -> "Future[Any]":
        actor = self._idle.pop(0)
        future: Future[Any] = Future()

        def done(answer: "Future[Any]") -> None:
            error = answer.exception()
            if isinstance(error, self._ray.exceptions.RayActorError):
                self._all.remove(actor)
                future.set_exception(Lost("its machine is gone"))
                return
            self._idle.append(actor)
            if error is None:
                future.set_result(None)
            else:  # a task's own error comes wrapped in one that has both types
                own = getattr(error, "cause", None)
                future.set_exception(own if isinstance(own, Exception) else error)

        actor.do.remote(task).future().add_done_callback(done)
        return future

    def __enter__(self) -> "RayWorkers":
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(Exception):  # the head may be gone
            for actor in self._all:
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
        place = self._folder / _PLACE
        with suppress(OSError):
            if place.read_text(encoding="utf-8") == self._token:
                task.do(common(self._begin))
                return
        raise ProbeError(
            f"{socket.gethostname()} does not see {self._folder}: give --out a folder that all machines share, under "
            "the same path"
        )


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ProbeError("the engine 'ray' needs Ray; install it: pip install 'probe-interp[ray]'") from None
    return ray


def _connect(ray: Any, address: str) -> None:
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    if address:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            said = (str(error).strip().splitlines() or [""])[0]
            raise ProbeError(
                f"no Ray cluster at {address} ({said}); start one there: ray start --head, or give --engine ray for "
                "one on this machine"
            ) from None
        return
    try:
        ray.init(address="auto", log_to_driver=False, logging_level="error")
    except ConnectionError:
        with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True):
            ray.init(**quiet)

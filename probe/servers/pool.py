"""Several servers of one model that share requests. If one stops answering, the others take over its requests."""

import logging
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from probe.errors import ProbeError
from probe.servers.client import Failed, pause
from probe.servers.config import ServersConfig
from probe.servers.dialects import Answer, Ask
from probe.servers.server import Server

_LOG = logging.getLogger("probe")
_TRIES = 5
"""How often a request is tried if a server answers it with an error; other requests continue meanwhile."""
_LOOK = 10.0
"""The maximum number of seconds between two checks of a server that does not answer, and for one check."""
_SILENCE = 300.0
"""Seconds without an answer after which a warning is logged."""

Numbered = tuple[int, Ask]


@dataclass(frozen=True)
class Servers:
    """Servers that share requests.

    Attributes:
        servers: the servers, which all serve the same model.
        config: how many requests each server gets at once, and how long to wait for the servers.

    Raises:
        ProbeError: if the servers differ in their kind, their name for the model or their version.
    """

    servers: Sequence[Server]
    config: ServersConfig = field(default_factory=ServersConfig)

    def __post_init__(self) -> None:
        first = self.servers[0]
        for each in self.servers[1:]:
            if each.who != first.who:
                raise ProbeError(
                    f"the servers at {first.client.url} and {each.client.url} differ ({first.who} and {each.who}); "
                    "give servers of the same kind and version, with the same name for the model"
                )

    @property
    def who(self) -> dict[str, str | None]:
        """What identifies the writer: the kind of the servers, their name for the model, and their version."""
        return self.servers[0].who

    @property
    def by_ids(self) -> bool:
        """Whether the servers read and write token ids; otherwise text."""
        return self.servers[0].dialect.by_ids

    @property
    def context(self) -> int | None:
        """The maximum number of tokens of a prompt and its answer; None if no server reports it."""
        return min((each.context for each in self.servers if each.context is not None), default=None)

    def answers(self, asks: Iterable[Numbered]) -> Iterator[tuple[int, Answer]]:
        """Ask for many continuations at once.

        Args:
            asks: numbered requests; each is taken when a server has room for it.

        Yields:
            The number of a request and its answer, as soon as it arrives.

        Raises:
            ProbeError: for a failure that every request would have, for a request that fails repeatedly, and if no
                server has answered for ``patience`` seconds.
        """
        work = _Work(iter(asks))
        for server in self.servers:
            helper = _Helper(server, work)
            for _ in range(self.config.concurrency):
                threading.Thread(target=helper.run, daemon=True).start()
        said = time.monotonic()
        try:
            while not work.finished:
                try:
                    found = work.found.get(timeout=0.2)
                except queue.Empty:
                    said = self._wait(work, said)
                    continue
                if isinstance(found, Exception):
                    raise found
                said = work.heard()
                work.give()
                yield found
        finally:
            work.stopped.set()

    def _wait(self, work: "_Work", said: float) -> float:
        """Raise an error if there were only failures for too long; otherwise log from time to time that we wait."""
        now, where = time.monotonic(), " and ".join(each.client.url for each in self.servers)
        if work.flying == 0 and work.failing is not None and now - work.failing > self.config.patience:
            raise ProbeError(
                f"{where} stopped answering ({work.reason}); start it again, then run the same command again; finished "
                "answers are kept"
            )
        if now - said > _SILENCE:
            _LOG.warning("waiting for %s: no answer for some minutes", where)
            return now
        return said


class _Work:
    """Requests, answers and failures, shared by all threads."""

    def __init__(self, asks: Iterator[Numbered]) -> None:
        self._asks, self._lock = asks, threading.Lock()
        self._again: list[tuple[Numbered, int]] = []
        self._open, self._end = 0, False
        self.found: queue.Queue[tuple[int, Answer] | Exception] = queue.Queue()
        self.stopped = threading.Event()
        self.down: set[str] = set()
        self.flying = 0
        """The number of requests that servers are working on."""
        self.failing: float | None = None
        """The time of the first failure since the last answer."""
        self.reason = ""

    @property
    def finished(self) -> bool:
        """Whether every request was answered, and every answer was taken."""
        with self._lock:
            return self._end and self._open == 0

    def take(self) -> tuple[Numbered, int] | None:
        """The next request and how often it was tried; None if there is none now."""
        with self._lock:
            if self._again:
                return self._again.pop()
            if not self._end:
                try:
                    ask = next(self._asks)
                except StopIteration:
                    self._end = True
                except Exception as error:  # whatever makes the requests failed: the reading thread raises it
                    self.found.put(error)
                    self._end = True
                else:
                    self._open += 1
                    return ask, 0
            return None

    def back(self, ask: Numbered, tried: int) -> None:
        """Give a request back; it is tried again before new ones."""
        with self._lock:
            self._again.append((ask, tried))

    def give(self) -> None:
        """Count a request as done."""
        with self._lock:
            self._open -= 1

    def fly(self, change: int) -> None:
        """Count the requests that servers are working on."""
        with self._lock:
            self.flying += change

    def fail(self, reason: str) -> None:
        """Note that a request has failed."""
        self.reason = reason
        self.failing = self.failing or time.monotonic()

    def heard(self) -> float:
        """Note that an answer came, and return the time."""
        self.failing = None
        return time.monotonic()


class _Helper:
    """Sends requests to one server, from several threads."""

    def __init__(self, server: Server, work: _Work) -> None:
        self._server, self._work = server, work
        self._url = server.client.url
        self._resting = threading.Lock()

    def run(self) -> None:
        """Send requests until none is left."""
        work = self._work
        while not work.stopped.is_set():
            if self._url in work.down and not self._rest():
                continue
            taken = work.take()
            if taken is None:
                if work.finished:
                    return
                work.stopped.wait(0.1)  # another thread may give a request back
                continue
            (number, ask), tried = taken
            work.fly(1)
            try:
                found: tuple[int, Answer] | Exception = number, self._server.complete(ask)
            except Exception as error:  # a thread must not die unheard
                found = error
            work.fly(-1)
            if isinstance(found, Failed):
                self._failed((number, ask), tried, found)
            else:  # an answer, or an error that the thread that reads the answers raises
                work.found.put(found)

    def _failed(self, ask: Numbered, tried: int, failed: Failed) -> None:
        work = self._work
        work.fail(str(failed))
        if failed.unreachable or failed.status == 503:
            work.back(ask, tried)
            if self._url not in work.down:
                work.down.add(self._url)
                _LOG.warning("%s does not answer (%s); waiting for it", self._url, failed)
            return
        if tried + 1 >= _TRIES and failed.status != 429:
            said = f"the server at {self._url} failed {_TRIES} times on the same request ({failed})"
            work.found.put(ProbeError(f"{said}; run the same command again to resume: finished answers are kept"))
            return
        work.stopped.wait(pause(tried) if failed.wait is None else failed.wait)
        work.back(ask, tried + 1)

    def _rest(self) -> bool:
        """Wait until the server answers again; only one thread checks."""
        work, tried = self._work, 0
        if not self._resting.acquire(blocking=False):
            work.stopped.wait(0.2)
            return False
        try:
            while self._url in work.down and not work.stopped.wait(min(pause(tried), _LOOK)):
                tried += 1
                try:
                    self._server.client.send("models", timeout=_LOOK)
                except Failed as failed:
                    if failed.status is None or failed.status == 503:
                        work.fail(str(failed))  # again, because late answers may have reset the failure
                        continue
                work.down.discard(self._url)
                _LOG.warning("%s answers again", self._url)
            return self._url not in work.down
        finally:
            self._resting.release()

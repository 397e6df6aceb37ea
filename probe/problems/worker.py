"""Calls into other libraries that may never return, in a process of their own with a time limit.

Graders and generators of other libraries can run for hours, or take all memory, on the text of a model. A time limit by
signal works in the main thread alone, and not in compiled code. A process can be ended in any case.
"""

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from functools import cache
from typing import Any

from probe.errors import ProbeError

SECONDS = 10
"""How long one call may take."""
#: The first call also starts Python and imports the library, which takes long on a busy machine.
_STARTING = 120
_MEMORY = 8 * 2**30
#: Some tasks of reasoning-gym go through sets, so their items depend on the hashes of strings.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONIOENCODING": "utf-8"}


class CallFailed(Exception):
    """A call raised an error, ended its process or ran past its time."""


class Worker:
    """A process that answers one call after another; it is started by the first call and again after it was ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.SimpleQueue[str] = queue.SimpleQueue()
        atexit.register(self.stop)

    def call(self, function: str, *arguments: Any, seconds: float = SECONDS) -> Any:
        """Call a function of :mod:`probe.problems.remote` in the process, and return what it returns.

        Args:
            function: its name.
            arguments: values that JSON can store.
            seconds: the time limit.

        Raises:
            CallFailed: if it raises an error, ends its process or takes too long; the message is the reason.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            reply = self._ask([function, *arguments], seconds)
        if "error" in reply:
            raise CallFailed(reply["error"])
        return reply["value"]

    def _start(self) -> None:
        self.stop()
        # Not by multiprocessing, which runs the user's main module a second time.
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from probe.problems.remote import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | _ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            text=True,
            encoding="utf-8",
        )
        self._replies = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(self._process, self._replies), daemon=True).start()
        if "error" in self._ask(["ready", _MEMORY], _STARTING):
            raise ProbeError(f"{sys.executable} cannot import probe in a process of its own; is it installed?")

    def _ask(self, request: list[Any], seconds: float) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin is not None
        reply = ""
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            reply = self._replies.get(timeout=seconds)
        except (queue.Empty, OSError):
            pass
        if reply:
            return json.loads(reply)
        ended = self._process.poll() is not None
        self.stop()
        return {"error": "its process ended" if ended else f"it took longer than {seconds:.0f} s"}

    def stop(self) -> None:
        """End the process, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            with contextlib.suppress(OSError):
                assert process.stdin is not None
                process.stdin.close()


def _listen(process: subprocess.Popen[str], replies: "queue.SimpleQueue[str]") -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            replies.put(line)
    replies.put("")


def worker() -> Worker:
    """Return the worker of this process."""
    return _worker(os.getpid())


@cache
def _worker(pid: int) -> Worker:  # noqa: ARG001 - a forked process must not share the pipes of its parent
    return Worker()

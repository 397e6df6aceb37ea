"""Processes of their own that begin with everything imported.

Python, torch and the package take ten seconds to import, which is most of what a test of a killed or a second process
would cost. These are forked from a server that has imported them already and runs no thread, and are otherwise like any
process: they have memory of their own, and signals kill them.
"""

import multiprocessing
import os
import shutil
import socket
import sys
import tempfile
import time
import traceback
import weakref
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PRELOAD = ["torch", "transformers", "sklearn.cluster", "probe.cli", "probe.pipeline.run.run"]
PRELOAD += ["probe.pipeline.discover.discover", "tests.forked"]


def context() -> Any:
    """What starts such processes."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOAD)
    return found


class Forked:
    """A function in a process of its own, used as ``subprocess.Popen`` is.

    Args:
        function: called with ``arguments``; a test module must be imported by the name that it has as a file.
        environment: changes of the environment.
    """

    def __init__(self, function: Callable[..., object], *arguments: object, **environment: str) -> None:
        said = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, said, ignore_errors=True)
        places = (Path(said, "out"), Path(said, "error"))
        self._out, self._error = places
        told = (function, arguments, {**os.environ, **environment}, os.getcwd(), *map(str, places))
        self._process: BaseProcess = context().Process(target=_begin, args=told)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return self._out.read_text() if self._out.exists() else ""

    @property
    def stderr(self) -> str:
        """What it has complained about so far."""
        return self._error.read_text() if self._error.exists() else ""

    @property
    def returncode(self) -> int | None:
        """The exit code, or the negative number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self.returncode

    def kill(self) -> None:
        """End it without notice."""
        self._process.kill()
        self._process.join()

    def wait(self, seconds: float | None = None) -> int:
        """Wait for its end and return the exit code; raises TimeoutError if it runs on."""
        self._process.join(seconds)
        if self.returncode is None:
            raise TimeoutError
        return self.returncode

    def wait_for(self, there: Callable[[], object], seconds: float = 300) -> None:
        """Wait until something is there; raises AssertionError if the process ends before."""
        until = time.monotonic() + seconds
        while not there():
            if self.poll() is not None or time.monotonic() > until:
                self.kill()
                raise AssertionError(self.stderr[-2000:] or "it ended, or time is over")
            time.sleep(0.01)


def done(function: Callable[..., object], *arguments: object, **environment: str) -> Forked:
    """Run a function in a process of its own until it ends well."""
    process = Forked(function, *arguments, **environment)
    assert process.wait(600) == 0, process.stderr[-2000:]
    return process


def together(n: int, function: Callable[..., object], *arguments: object) -> None:
    """Run a function in ``n`` processes that know of each other as those of ``torchrun`` do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    known = {"WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    all_of_them = [Forked(function, *arguments, RANK=str(i), LOCAL_RANK=str(i), **known) for i in range(n)]
    for process in all_of_them:
        assert process.wait(600) == 0, process.stderr[-2000:]


def command(*arguments: str) -> None:
    """The ``probe`` command, as a function."""
    from probe.cli import main

    sys.argv = ["probe", *arguments]
    main()


def _begin(
    function: Callable[..., object], arguments: tuple, environment: dict[str, str], here: str, out: str, error: str
) -> None:
    import torch

    for stream, place in ((1, out), (2, error)):
        file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, stream)
        os.close(file)
    os.chdir(here)
    os.environ.clear()  # the server has that of the first test that needed it
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        function(*arguments)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()

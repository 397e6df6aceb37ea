"""Runs that are killed: each in a process that can be killed without killing the tests."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import forked

Kill = Callable[[Callable, object, Path, str], None]


@pytest.fixture(scope="session")
def kill() -> Kill:
    """``kill(command, config, out, stage)``: ``kill -9`` of ``command(config, out)`` once the stage's folder exists."""
    processes = forked.context()

    def killed(command: Callable, config: object, out: Path, stage: str) -> None:
        assert not (out / stage).exists(), f"{stage} was begun before the process that is to die in it"
        process = processes.Process(target=command, args=(config, out))
        process.start()
        deadline = time.monotonic() + 120
        while not (out / stage).exists() and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert (out / stage).exists()

    return killed

"""Tasks that other processes do in the tests of engines."""

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from probe.errors import ProbeError


@dataclass(frozen=True)
class Bench:
    """What the tasks of a test have in common."""

    folder: Path

    def __call__(self) -> "Bench":
        (self.folder / f"begun-{os.getpid()}").touch()
        return self


def mark(bench: Bench, name: str, seconds: float = 0.0) -> None:
    """Leave a file that says which tasks were done before."""
    time.sleep(seconds)
    before = sorted(path.name for path in bench.folder.glob("done-*"))
    (bench.folder / f"done-{name}").write_text("\n".join(before))


def fail(bench: Bench, name: str, until: int = 10**9) -> None:
    """Fail so many times, then succeed."""
    tries = len(list(bench.folder.glob(f"try-{name}-*")))
    (bench.folder / f"try-{name}-{tries}").touch()
    if tries < until:
        raise ValueError(f"no luck\nin try {tries}")
    mark(bench, name)


def refuse(bench: Bench, name: str) -> None:
    """Find a mistake of the user."""
    (bench.folder / f"try-{name}-{os.urandom(4).hex()}").touch()
    raise ProbeError(f"{name} is wrong; write it otherwise")


def die_once(bench: Bench, name: str) -> None:
    """Be killed at the first try."""
    if not (bench.folder / f"try-{name}").exists():
        (bench.folder / f"try-{name}").touch()
        os.kill(os.getpid(), 9)
    mark(bench, name)


_broken: list[str] = []
"""What has made this process unusable, as a CUDA assert does."""


def break_once(bench: Bench, name: str) -> None:
    """At the first try, make this process fail at every later task."""
    if not (bench.folder / f"try-{name}").exists():
        (bench.folder / f"try-{name}").touch()
        _broken.append(name)
    mark_unless_broken(bench, name)


def mark_unless_broken(bench: Bench, name: str, seconds: float = 0.0) -> None:
    """Fail at once in a process that is broken."""
    if _broken:
        raise RuntimeError("device-side assert triggered")
    mark(bench, name, seconds)


def refuse_after_cuda(bench: Bench, name: str) -> None:
    """Find a mistake of the user where GPU memory cannot be given back."""
    import torch

    def fails() -> None:
        raise RuntimeError("device-side assert triggered")

    torch.cuda.empty_cache = fails
    refuse(bench, name)


def write_out(bench: Bench, name: str) -> None:
    """Write to stdout in each way that there is."""
    print("printed")  # noqa: T201
    os.write(1, b"from a C library\n")
    subprocess.run(["echo", "from a command"], check=True)
    mark(bench, name)


def task_of(do: Callable[..., None], name: str, **how: object) -> Callable[["Bench"], None]:
    """What a task calls."""
    return partial(do, name=name, **how)

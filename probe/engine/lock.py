"""One writer at a time in a folder of kept work."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from probe.errors import ProbeError
from probe.files import writing

LOCK = ".lock"
"""The file that is locked; it names the process that writes, and is removed when that process is done."""


class FolderLock:
    """Locks a folder for writing, as a context manager that may be entered again by the object that holds it.

    The operating system releases the lock when the process ends, however it ends, so a killed process blocks nobody.

    Args:
        folder: the folder; it is made when the lock is taken.
        wait: seconds to wait for another process that has the lock.

    Raises:
        ProbeError: on entering, if another process (or another object of this one) writes into the folder.
    """

    def __init__(self, folder: str | Path, *, wait: float = 0.0) -> None:
        self.folder = Path(folder)
        self._wait = wait
        self._lock = FileLock(self.folder / LOCK)

    def __enter__(self) -> "FolderLock":
        file = self.folder / LOCK
        if not self._lock.is_locked:
            # An error of the file system is raised here; FileLock takes some of them for a lock of another process.
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                file.touch()
        try:
            self._lock.acquire(timeout=self._wait)
        except Timeout:
            raise ProbeError(
                f"{self.folder} is being written by {_holder(file)}; wait until it ends, or name another folder"
            ) from None
        if self._lock.lock_counter == 1:
            with suppress(OSError):  # on a full disk: the folder is locked even if the name cannot be written
                file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock.lock_counter == 1:
            with suppress(OSError):  # where an open file cannot be removed, it stays and is unlocked
                (self.folder / LOCK).unlink(missing_ok=True)  # while held: a process that waits looks for a new file
        self._lock.release()


def _holder(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip() or "another process"
    except OSError:
        return "another process"

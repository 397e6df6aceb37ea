"""Progress of long work: a bar in a terminal or a notebook, and lines where stderr is a file or a pipe."""

import math
import sys
import time
from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar
from weakref import WeakSet

from tqdm.auto import tqdm as bar  # as widgets in a notebook
from tqdm.std import tqdm

T = TypeVar("T")

SECONDS = 30.0
"""The least time between two lines of one stage, besides its first and its last line."""
_NEVER = -math.inf


def progress_bar(items: Iterable[T] | None = None, *, show: bool, unit: str = "step", **how: Any) -> "tqdm[T]":
    """Show how far a stage is and how long it will still take.

    Args:
        items: what the stage goes through; without it, the caller calls ``update`` and ``close``.
        show: False shows nothing.
        unit: what is counted, in the singular.
        how: ``desc``, ``total``, ``initial`` and ``leave`` of tqdm.
    """
    kind: Any = _Lines if show and _is_log() else bar
    return kind(items, unit=unit, disable=not show, **how)


def say(text: str) -> None:
    """Write a line on stderr, above the bar if one is shown."""
    tqdm.write(text, file=sys.stderr)


def _is_log() -> bool:
    """Whether stderr is neither a terminal nor an output of a notebook, so that a bar cannot overwrite itself."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    in_notebook = "IPKernelApp" in getattr(shell, "config", ())
    return not in_notebook and not (sys.stderr is not None and sys.stderr.isatty())


class _Lines(tqdm):
    """Progress as lines: the first at the start, then one at most every 30 seconds, and the last at the end.

    With ``leave=False`` there is no first and no last line, because such a stage is short and comes often.
    """

    _instances: ClassVar[Any] = WeakSet()  # of its own: tqdm.write would show the others again after its text
    monitor_interval = 0  # no thread: a line is written when an item is done

    def __init__(self, *args: Any, **how: Any) -> None:
        self._written = _NEVER if how.get("leave", True) else time.monotonic()
        super().__init__(*args, mininterval=1, miniters=1, **how)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:  # noqa: ARG002
        """Write a line if it is time for one."""
        now = time.monotonic()
        if now - self._written < SECONDS or self.total == 0:
            return
        print(self._told(first=self._written == _NEVER, last=self.disable), file=self.fp, flush=True)
        self._written = now

    def _told(self, *, first: bool, last: bool) -> str:
        known = self.format_dict
        n, total, elapsed = known["n"], known["total"], known["elapsed"]
        name = known["prefix"].removesuffix(": ")
        told = f"{name}: {n:,} {known['unit']}s" if total is None else f"{name}: {n:,} of {total:,} {known['unit']}s"
        took, loss = tqdm.format_interval(elapsed), f", {known['postfix']}" if known["postfix"] else ""
        if last:
            return f"{told} in {took}{loss}"
        if first:
            return told
        if total is None:
            return f"{told}, {took} so far{loss}"
        rate = known["rate"] or (n - known["initial"]) / elapsed
        left = f", {tqdm.format_interval((total - n) / rate)} left" if rate else ""
        return f"{told} ({n / total:.0%}), {took} so far{left}{loss}"

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """Name what begins now, in a line of its own."""
        self._written = _NEVER
        super().set_description(desc, refresh)

    def close(self) -> None:
        """Write the last line."""
        if not self.disable:
            self.disable = True
            self._instances.discard(self)
            if self.leave:
                self._written = _NEVER
                self.display()

    def clear(self, *args: Any, **how: Any) -> None:
        """Leave the lines that are written."""

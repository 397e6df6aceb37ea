"""Damage to the files of a folder, as hypothesis strategies, and what a command does with a damaged folder."""

import copy
import json
import math
import shutil
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from typer.testing import CliRunner

from probe.cli import app

BIG = 10_000
"""Bytes at the beginning of a file that are damaged: a whole JSON file, or the header of tensors."""
ODD: list[Any] = [
    *(None, -1, 0, 1, 1e9, 10**30, 0.5, True, "", "x", "\ud800", "1", math.nan, math.inf),
    *([], {}, [None], [[]], {"a": 1}, {"value": "x"}, [1, 2, 3], ["x"]),
]
"""Values that replace one of a JSON file."""
WRITTEN = [
    b"null",
    b"{}",
    b"[]",
    b'"',
    b"\\",
    b"NaN",
    b"-1",
    b"1e999",
    b"\x00",
    b"\n",
    b"0" * 30,
    b"\xff",
    "💥".encode(),
]
"""Bytes that are put into a file."""


@dataclass(frozen=True)
class Damage:
    """What happens to one file of a folder."""

    file: float
    """Which file, as a share of all."""
    kind: str
    places: tuple[float, ...]
    """Where, as shares of the file or of its values."""
    choice: int
    """Which value or bytes are put there."""

    def apply(self, folder: Path, names: list[str]) -> str:
        """Damage the folder and say what was done."""
        path = folder / names[min(int(self.file * len(names)), len(names) - 1)]
        if self.kind == "delete":
            path.unlink()
        elif self.kind == "swap":
            other = folder / names[min(int(self.places[0] * len(names)), len(names) - 1)]
            first, second = path.read_bytes(), other.read_bytes()
            path.write_bytes(second)
            other.write_bytes(first)
        elif self.kind == "folder":
            path.unlink()
            path.mkdir()
        elif self.kind in ("value", "key") and path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            for place in self.places:
                value = copy.deepcopy(ODD[self.choice % len(ODD)])
                content = _replaced(content, place, value, drop=self.kind == "key")
            path.write_text(json.dumps(content), encoding="utf-8")
        else:
            path.write_bytes(self._bytes(path.read_bytes()))
        return f"{self.kind} {path.relative_to(folder)}"

    def _bytes(self, data: bytes) -> bytes:
        head, tail = bytearray(data[:BIG]), data[BIG:]
        if self.kind == "truncate":
            return data[: int(self.places[0] * len(data))]
        for i, place in enumerate(self.places):
            at = min(int(place * len(head)), max(0, len(head) - 1))
            match (self.choice + i) % 3 if head else 1:
                case 0:
                    head[at] = (head[at] + 1 + self.choice) % 256
                case 1:
                    head[at:at] = WRITTEN[self.choice % len(WRITTEN)]
                case 2:
                    del head[at : at + 1 + self.choice % 8]
        return bytes(head) + tail


def _places(content: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a JSON file; of long lists only to the first and the last item."""
    found = [at]
    if isinstance(content, dict):
        for key in content:
            found += _places(content[key], (*at, key))
    elif isinstance(content, list):
        for i in sorted({*range(min(2, len(content))), len(content) - 1} - {-1}):
            found += _places(content[i], (*at, i))
    return found


def _replaced(content: Any, place: float, value: Any, *, drop: bool) -> Any:
    ways = _places(content)
    way = ways[min(int(place * len(ways)), len(ways) - 1)]
    if not way:
        return content if drop else value
    parent = content
    for step in way[:-1]:
        parent = parent[step]
    if drop:
        del parent[way[-1]]
    else:
        parent[way[-1]] = value
    return content


shares = st.floats(0, 1, exclude_max=True, width=32)
damages = st.builds(
    Damage,
    file=shares,
    kind=st.sampled_from(["value"] * 6 + ["key"] * 2 + ["bytes"] * 3 + ["truncate", "delete", "swap", "folder"]),
    places=st.lists(shares, min_size=1, max_size=3).map(tuple),
    choice=st.integers(0, 10_000),
)


class Home:
    """A folder that is damaged again and again, and put back each time.

    Args:
        folder: the folder; it is changed and put back.
        names: patterns of the files that are damaged; the others are left alone.
    """

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        self.whole = contents(folder)
        files = {path for name in names for path in folder.glob(name) if path.is_file()}
        self.names = sorted(str(path.relative_to(folder)) for path in files)
        assert self.names, f"{folder} has none of {names}"

    def check(self, damage: Damage, *command: str) -> str:
        """Damage the folder and run a command on it.

        Returns:
            What was wrong with how it ended; "" if it did its work, or refused in one line and left every file alone.
        """
        try:
            done = damage.apply(self.folder, self.names)
            before = contents(self.folder)
            code, wrong = ending(*command)
            if not wrong and code == 2 and contents(self.folder) != before:
                wrong = "it refused and changed the folder"
            return wrong and f"{done}: {wrong}"
        finally:
            self.restore()

    def restore(self) -> None:
        """Put every file back."""
        now = contents(self.folder)
        for name in now.keys() - self.whole.keys():
            (self.folder / name).unlink()
        for name, data in self.whole.items():
            if now.get(name) != data:
                path = self.folder / name
                if path.is_dir():
                    shutil.rmtree(path)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ending(*command: str) -> tuple[int, str]:
    """Run a command as a user does.

    Returns:
        The exit code, and what is wrong with it: "" for 0, and for 2 with one line that says why.
    """
    done = CliRunner().invoke(app, list(command), env={"COLUMNS": "80", "TERM": "dumb"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        own = [each for each in traceback.extract_tb(done.exception.__traceback__) if "/probe/" in each.filename]
        place = f"{own[-1].filename.split('/probe/')[-1]}:{own[-1].lineno}" if own else "?"
        said = (str(done.exception).splitlines() or [""])[0][:200]
        return done.exit_code, f"{type(done.exception).__name__} at {place}: {said}"
    said = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.startswith("probe: ")]
    if done.exit_code == 0:
        return 0, "" if not said else f"exit code 0 and {said}"
    if done.exit_code != 2 or len(said) != 1 or "Traceback" in done.output or len(said[0]) > 1000:
        return done.exit_code, f"exit code {done.exit_code}, {len(said)} lines: {done.stderr[-300:]}"
    return 2, ""

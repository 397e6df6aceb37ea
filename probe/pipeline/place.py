"""Where a folder was written, so that the paths in it lead to their inputs after it was moved, and from anywhere."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from probe.files import absolute, is_there, map_paths, read_json, write_json

_PLACE = "place.json"


def note_place(out: Path) -> None:
    """Write down where a folder is."""
    write_json(out / _PLACE, {"folder": absolute(out)})


def find_again(settings: dict[str, Any], out: Path) -> dict[str, Any]:
    """The settings that a folder keeps, with every path changed to where it leads now, if anything is there.

    Whether what they lead to is still the same is for the caller to check, by content.
    """
    return map_paths(settings, lambda path: found(path, out))


def found(path: str, out: Path, kept: Path | None = None) -> str:
    """Where a path in a folder leads now; the path itself if nothing is there.

    Args:
        path: the path as the folder keeps it.
        out: the folder.
        kept: a copy that the folder has for the case that there is nothing else.
    """
    return next((str(each) for each in _places(path, out, kept) if is_there(each)), path)


def _places(path: str, out: Path, kept: Path | None) -> Iterator[Path]:
    there = Path(path).expanduser()
    yield there
    place = read_json(out / _PLACE) if (out / _PLACE).is_file() else {}
    was = place.get("folder") if isinstance(place, dict) else None
    if isinstance(was, str) and there.is_absolute():  # moved together with the folder
        yield Path(os.path.normpath(Path(absolute(out)) / os.path.relpath(there, was)))
    if not there.is_absolute():  # of an earlier version: from the folder in which the command was called
        yield from (above / path for above in Path(absolute(out)).parents)
    if kept is not None:
        yield kept

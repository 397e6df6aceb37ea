"""Where records come from: files, folders, and data sets on the hub; each is read record by record."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from probe.errors import ProbeError
from probe.files import file_hash, is_there, object_hash, read_json, read_json_lines
from probe.problems import read_records

Found = tuple[str, dict[str, Any] | ProbeError]
"""The place of a record for error messages, and the record or the error in its line."""

_LINES = (".jsonl", ".ndjson", ".parquet")
_SKIPPED = ("dataset_info.json", "dataset_dict.json", "state.json", "import.json", "rejects.jsonl", "problems.jsonl")
"""Files that hold no records, only facts about other files."""


@dataclass(frozen=True)
class Source:
    """Records that can be read more than once."""

    name: str
    """The name that the user gave."""
    records: Callable[[], Iterator[Found]]
    """Reads the records, from the first one on."""
    hash: str
    """Identifies the content; on the hub, the commit."""
    files: int
    """The number of files; 0 on the hub."""


def open_source(named: str | Path) -> Source:
    """Find a source.

    Args:
        named: a ``.jsonl``, ``.json`` or ``.parquet`` file, a folder of such files, a folder that ``datasets`` saved, a
            folder of math-rollouts, or the id of a data set on the hub, as ``ORG/NAME``, ``ORG/NAME:CONFIG`` or
            ``ORG/NAME:CONFIG:SPLIT``.

    Raises:
        ProbeError: if the source does not exist, or the hub cannot be reached.
    """
    path = Path(named).expanduser()
    if not is_there(path):
        if re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]*){0,2}", str(named)) and not str(named).endswith(_LINES):
            return _on_hub(str(named))
        raise ProbeError(f"there is no file or folder {named}; give a file, a folder, or a data set such as ORG/NAME")
    if path.is_file():
        if path.suffix.lower() not in (*_LINES, ".json"):
            raise ProbeError(f"{path} is not a .jsonl, .json or .parquet file")
        files = [path]
        return Source(str(named), lambda: _of_file(path), _hash(files, path.parent), 1)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        files = sorted(path.rglob("*.arrow"))
        return Source(str(named), lambda: _saved(path), _hash(files, path), len(files))
    if rollouts := _rollout_files(path):
        return Source(str(named), lambda: _of_rollouts(rollouts), _hash(rollouts, path), len(rollouts))
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in (*_LINES, ".json") and file.is_file() and file.name not in _SKIPPED
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not files:
        raise ProbeError(f"{path} has no .jsonl, .json or .parquet file")
    return Source(
        str(named), lambda: (each for file in files for each in _of_file(file)), _hash(files, path), len(files)
    )


def _hash(files: list[Path], home: Path) -> str:
    return object_hash({str(file.relative_to(home)): file_hash(file) for file in files})


def _of_file(path: Path) -> Iterator[Found]:
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        yield from read_json_lines(path)
        return
    if path.suffix.lower() != ".json":
        yield from read_records(path)
        return
    rows = read_json(path)
    # Some tools write one object that holds a list of records, or one record for each problem.
    if isinstance(rows, dict):
        lists = [value for value in rows.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
        rows = lists[0] if len(lists) == 1 and "choices" not in rows and "messages" not in rows else [rows]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProbeError(f"{path} is not a list of JSON objects")
    yield from ((f"{path}, row {i}", row) for i, row in enumerate(rows))


def _saved(folder: Path) -> Iterator[Found]:
    """The records of a folder that ``datasets`` saved."""
    from datasets import DatasetDict, load_from_disk

    try:
        saved: Any = load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ProbeError(f"{folder} cannot be read as a saved data set ({reason})") from None
    splits: dict[str, Any] = {str(name): rows for name, rows in saved.items()} if isinstance(saved, DatasetDict) else {}
    for split, rows in (splits or {"": saved}).items():
        place = f"{folder} {split}".rstrip()
        for i, row in enumerate(rows):
            yield f"{place}, row {i}", row


def _on_hub(named: str) -> Source:
    """A data set on the hub; it is downloaded once and then read from the cache."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    name, _, rest = named.partition(":")
    config, _, split = rest.partition(":")
    try:
        sets: Any = load_dataset(name, config or None)
    except (OSError, ValueError, DatasetsError, HfHubHTTPError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ProbeError(
            f"{named} cannot be loaded from the hub ({reason}); check the name, or download it elsewhere with: hf "
            f"download {name} --repo-type dataset --local-dir FOLDER"
        ) from None
    if split and split not in sets:
        raise ProbeError(f"{named} has no split {split!r}; it has {', '.join(sets)}")

    def records() -> Iterator[Found]:
        for each in [split] if split else sets:
            yield from ((f"{name} {each}, row {i}", row) for i, row in enumerate(sets[each]))

    made = {each: rows._fingerprint for each, rows in sets.items() if split in ("", each)}
    return Source(named, records, object_hash(made), 0)


def _rollout_files(folder: Path) -> list[Path]:
    """The files of a folder of math-rollouts: whole solutions, or rollouts of single sentences if there are none."""
    for name in ("base_solution.json", "solutions.json"):
        if found := sorted(folder.rglob(name), key=_in_order):
            return found
    return []


def _in_order(path: Path) -> list[Any]:
    """A key that sorts ``problem_2`` before ``problem_10``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", str(path))]


def _of_rollouts(files: list[Path]) -> Iterator[Found]:
    for file in files:
        told = next((each for each in islice(file.parents, 2) if (each / "problem.json").is_file()), None)
        problem = read_json(told / "problem.json") if told else {}
        of = next((each.name for each in islice(file.parents, 3) if each.name.startswith("problem_")), None)
        rows = read_json(file)
        for i, row in enumerate(rows if isinstance(rows, list) else [rows]):
            if not isinstance(row, dict):
                raise ProbeError(f"{file} is not a rollout of math-rollouts")
            yield f"{file}, row {i}", {**problem, "problem_name": of, "path": str(file), **row}

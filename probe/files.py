"""Files that are written completely or not at all, and hashes that identify the inputs of a result."""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError

if TYPE_CHECKING:
    import pyarrow as pa
    import torch


def write_text(path: str | Path, text: str) -> Path:
    """Write ``text`` to ``path`` atomically: a reader sees the old file or the complete new one, even after a kill.

    Missing folders are made.

    Raises:
        ProbeError: if the path is a folder.

    Example:
        >>> write_text("runs/note.txt", "three seeds")  # doctest: +SKIP
    """
    # newline="" writes the same bytes, which may be hashed, on every system.
    return _write_whole(path, lambda part: part.write_text(text, encoding="utf-8", newline=""))


def _write_whole(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file, then rename it to ``path``."""
    path = Path(path)
    if path.is_dir():
        raise ProbeError(f"{path} is a folder; name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that the replacement is a rename within one file system.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """Write ``value`` as indented JSON, atomically as :func:`write_text` does.

    Raises:
        ValueError: if a number is not finite, which JSON cannot store; write None instead.
        TypeError: if ``value`` contains an object that JSON cannot store.
    """
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path, *, fix: str = "delete the file to make it again") -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        fix: what to do about a damaged file, for the error message.

    Raises:
        ProbeError: if the file is missing or is not JSON; the message names the file and the line.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProbeError(f"{path} does not exist") from None
    except OSError as error:
        raise ProbeError(f"{path} cannot be read ({error.strerror}); is it a file?") from None
    except UnicodeDecodeError as error:
        raise ProbeError(f"{path} is not UTF-8 text (byte {error.start}); {fix}") from None
    except json.JSONDecodeError as error:
        raise ProbeError(f"{path}:{error.lineno} is not valid JSON ({error.msg}); {fix}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or as many brackets
        raise ProbeError(f"{path} cannot be read ({error}); {fix}") from None


def read_jsonl(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the objects of a JSONL file; empty lines are skipped.

    Yields:
        The place of each object (``file:line``) and the object.

    Raises:
        ProbeError: if the file is missing or not UTF-8, or a line is not a JSON object; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise ProbeError(f"there is no file {path}")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ProbeError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ProbeError(f"{where} is not valid JSON ({error.msg}); write one JSON object on each line") from None
        if not isinstance(record, dict):
            raise ProbeError(f"{where} is not a JSON object; write one JSON object on each line")
        yield where, record


def read_tensors(path: str | Path) -> "dict[str, torch.Tensor]":
    """Read the tensors of a safetensors file, by name.

    Raises:
        ProbeError: if the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise ProbeError(f"{path} cannot be read ({error}); make it again") from None


def write_table(path: str | Path, table: "pa.Table") -> Path:
    """Write a table as a Parquet file, atomically as :func:`write_text` does, and return the path."""
    import pyarrow.parquet as pq

    return _write_whole(path, lambda part: pq.write_table(table, part, compression="zstd"))


def read_table(path: str | Path) -> "pa.Table":
    """Read a Parquet file.

    Raises:
        ProbeError: if the file is missing or is not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise ProbeError(f"{path} does not exist") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        said = (str(error).splitlines() or ["damaged"])[0]
        raise ProbeError(f"{path} cannot be read ({said}); delete it to make it again") from None


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def object_hash(value: Any) -> str:
    """Return the SHA-256 of a value that JSON can store as 64 hex digits; the order of dictionary keys does not matter.

    >>> object_hash({"a": 1, "b": [2]}) == object_hash({"b": (2,), "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()

"""Files that are written completely or not at all, and hashes that identify the inputs of a result."""

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
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
        ProbeError: if the path is a folder, or cannot be written.

    Example:
        >>> write_text("runs/note.txt", "three seeds")  # doctest: +SKIP
    """
    # newline="" writes the same bytes, which may be hashed, on every system.
    return _write_whole(path, lambda part: part.write_text(text, encoding="utf-8", newline=""))


def _write_whole(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file, then rename it to ``path``."""
    path = Path(path)
    with writing(path):
        if path.is_dir():
            raise ProbeError(f"{path} is a folder; name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, so that the replacement is a rename within one file system.
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            write(part)
            os.replace(part, path)
        finally:
            with suppress(OSError):  # the first error says more
                part.unlink(missing_ok=True)
    return path


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Name the path where writing fails: on a full or read-only disk, below a file, or under a name that is too long.

    Raises:
        ProbeError: in place of the error of the file system.
    """
    try:
        yield
    except OSError as error:
        raise ProbeError(f"{path} cannot be written ({error.strerror or error}); {_advice(error)}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # known by its name, so that this file does not import it
            raise
        raise ProbeError(f"{path} cannot be written ({error}); free some space, or name another folder") from error


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space and run the same again to resume"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return "a folder in this path is a file: name another folder"
    return "name another folder"


def write_json(path: str | Path, value: Any, *, indent: int | None = 1) -> Path:
    """Write ``value`` as JSON, atomically as :func:`write_text` does.

    Args:
        path: the file.
        value: what to write.
        indent: spaces of each level; None for a file of one line, for long lists of numbers.

    Raises:
        ValueError: if a number is not finite, which JSON cannot store; write None instead.
        TypeError: if ``value`` contains an object that JSON cannot store.
    """
    return write_text(path, json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path, *, fix: str = "it is damaged: restore it") -> Any:
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
    """Read the objects of a JSONL file in UTF-8, UTF-16 or UTF-32, line by line; empty lines are skipped.

    Whole numbers of more digits than Python reads stay text.

    Yields:
        The place of each object (``file:line``) and the object.

    Raises:
        ProbeError: if the file is missing or is not text, or a line is not a JSON object or holds half a character; the
            message names the line.
    """
    for where, record in read_json_lines(path):
        if isinstance(record, ProbeError):
            raise record
        yield where, record


def read_json_lines(path: str | Path) -> Iterator[tuple[str, dict[str, Any] | ProbeError]]:
    """Read the objects of a JSONL file as :func:`read_jsonl` does, and continue after a line that is none.

    Yields:
        The place of each line and its object, or what is wrong with it.

    Raises:
        ProbeError: if the file is missing or is not text.
    """
    path = Path(path)
    if not path.is_file():
        raise ProbeError(f"there is no file {path}")
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record = json.loads(line, parse_int=_whole_number)
        except json.JSONDecodeError as error:
            lines = list(islice(_lines(path), _LOOKED_AT))
            whole = 1 < len(lines) < _LOOKED_AT and _is_json("\n".join(lines))
            fix = f"; it is spread over several lines: jq -c . {path}" if whole else ""
            why = f"{where} is not valid JSON ({error.msg}); write one JSON object on each line{fix}"
            yield where, ProbeError(why)
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, or as many brackets
            yield where, ProbeError(f"{where} cannot be read ({error}); write one JSON object on each line")
        else:
            if not isinstance(record, dict):
                yield where, ProbeError(f"{where} is not a JSON object; write one JSON object on each line")
            elif "\\u" in line and (half := _half_character(record)):
                yield (
                    where,
                    ProbeError(f"{where} holds {half!r}, which is half of a character; write the whole character"),
                )
            else:
                yield where, record


_LOOKED_AT = 10_000
"""Number of lines that are read again to find out whether a file is one object."""


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, one after the other; a file in UTF-16 or UTF-32 is read as a whole."""
    try:
        with open(path, "rb") as file:
            encoding = json.detect_encoding(file.read(4))
            file.seek(0)
            lines = iter(file) if encoding.startswith("utf-8") else iter([file.read()])
            at = 0
            for number, data in enumerate(lines, start=1):
                try:
                    text = data.decode(encoding if number == 1 else encoding.removesuffix("-sig"))
                except UnicodeDecodeError as error:
                    line = number + data.count(b"\n", 0, error.start)
                    raise ProbeError(
                        f"{path}:{line} is not UTF-8 text (byte {at + error.start}); save the file as UTF-8"
                    ) from None
                at += len(data)
                yield from [text.removesuffix("\n")] if encoding.startswith("utf-8") else text.split("\n")
    except OSError as error:
        raise ProbeError(f"{path} cannot be read ({error.strerror})") from None


def _whole_number(digits: str) -> int | str:
    return int(digits) if len(digits) < 4000 else digits  # Python refuses to read, and to print, longer ones


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _half_character(record: dict[str, Any]) -> str | None:
    """One half of a UTF-16 pair, which cannot be written to any file; None if there is none."""
    try:
        json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        return str(error.object)[error.start]
    return None


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


def write_tensors(path: str | Path, tensors: "Mapping[str, torch.Tensor]") -> Path:
    """Write tensors as a safetensors file, atomically as :func:`write_text` does, and return the path."""
    from safetensors.torch import save_file

    here = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    return _write_whole(path, lambda part: save_file(here, part))


def write_table(path: str | Path, table: "pa.Table") -> Path:
    """Write a table as a Parquet file, atomically as :func:`write_text` does, and return the path."""
    import pyarrow.parquet as pq

    return _write_whole(path, lambda part: pq.write_table(table, part, compression="zstd"))


def write_tables(path: str | Path, tables: "Iterable[pa.Table]", *, regroup: bool = True) -> Path:
    """Write tables one below the other as one Parquet file, atomically as :func:`write_text` does; return the path.

    Args:
        path: the file.
        tables: at least one.
        regroup: write the bytes of the whole table, however it is divided; about a million rows are held at once. If
            False, each table is a row group of its own, and only one is held.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def groups() -> "Iterator[pa.Table]":
        left = None
        for table in tables:
            left = table if left is None else pa.concat_tables([left, table])
            while len(left) > _ROW_GROUP:
                yield left[:_ROW_GROUP].combine_chunks()
                left = left[_ROW_GROUP:]
        if left is not None:
            yield left.combine_chunks()

    def write(part: Path) -> None:
        file = None
        for table in groups() if regroup else tables:
            file = file or pq.ParquetWriter(part, table.schema, compression="zstd")
            file.write_table(table)
        if file is not None:
            file.close()

    return _write_whole(path, write)


_ROW_GROUP = 2**20
"""The rows of a group of a Parquet file, pyarrow's default."""


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


_FOLDERS = ("run", "traces", "texts", "general", "series", "offload_folder")
"""Names of settings that are always a path."""
_ENDINGS = {"pair": (".yaml", ".yml"), "problems": (".jsonl", ".parquet", ".yaml", ".yml")}
"""Names of settings that are a path if they end so, and a name otherwise."""


def located(settings: Any, home: str | Path) -> Any:
    """Make the paths among settings absolute, so that they mean the same from any folder.

    A name, such as ``tiny-rl`` or ``org/name``, is left as it is. The ``path`` of a model and the name of an SAE
    are taken as paths if they look like one (``./base``, ``~/base``) or exist.

    Args:
        settings: a dictionary as read from YAML or made by ``to_dict``.
        home: the folder that relative paths start from.
    """
    return map_paths(settings, lambda path: absolute(path, home))


def map_paths(settings: Any, change: Callable[[str], str], *, name: str = "") -> Any:
    """Change every path among settings; see :func:`located` for what counts as one.

    Args:
        settings: a dictionary, or a part of it.
        change: called with each path.
        name: the name of ``settings`` in the dictionary above.
    """
    if isinstance(settings, Mapping):
        return {key: map_paths(value, change, name=str(key)) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [map_paths(value, change, name=name) for value in settings]
    if not isinstance(settings, str) or not settings:
        return settings
    if name == "problems":
        path = settings.partition(":")[2] or (settings if settings.endswith(_ENDINGS[name]) else "")
        one = bool(path) and is_there(change(path))  # the name of a file may have a +
        return "+".join(_problems_at(part, change) for part in ([settings] if one else settings.split("+")))
    if name == "series":
        kind, sign, path = settings.partition("=")
        return f"{kind}{sign}{change(path)}" if path else settings
    if name in _FOLDERS or settings.endswith(_ENDINGS.get(name, ("\0",))):
        return change(settings)
    # Else a hub id, or an SAE's RELEASE/SAE_ID.
    if name in ("path", "adapter", "sae") and not settings.startswith("bundled:"):
        there = change(settings)
        return there if settings.startswith((".", "~", "/")) or is_there(there) else settings
    return settings


def _problems_at(spec: str, change: Callable[[str], str]) -> str:
    kind, colon, path = spec.partition(":")
    if colon:  # NAME:PATH, except for a task of reasoning-gym
        return f"{kind}:{change(path)}" if path and kind != "reasoning-gym" else spec
    return change(spec) if spec.endswith(_ENDINGS["problems"]) else spec


def absolute(path: str | Path, home: str | Path = "") -> str:
    """An absolute path, from ``home``; ``~`` is expanded and links are kept."""
    return os.path.normpath(Path(home).expanduser().absolute() / Path(path).expanduser())


def is_there(path: str | Path) -> bool:
    """Whether a path exists; False also for a text that cannot be a path, such as one that is too long."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


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

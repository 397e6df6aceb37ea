"""Parquet files, written whole or not at all."""

import os
import secrets
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from probe._errors import ProbeError


def write_table(path: str | Path, table: pa.Table) -> Path:
    """Write a table as Parquet; a reader, or a killed process, sees the old file or the new one and nothing between."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        pq.write_table(table, part, compression="zstd")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def read_table(path: str | Path) -> pa.Table:
    """Read a Parquet file.

    Raises:
        ProbeError: if the file is missing or cannot be read.
    """
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise ProbeError(f"{path} does not exist") from None
    except pa.ArrowInvalid as error:
        raise ProbeError(f"{path} cannot be read ({str(error).splitlines()[0]}); delete it to make it anew") from None

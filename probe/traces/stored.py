"""Rows of a Parquet file, read on demand in groups of a bounded size."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from probe.errors import ProbeError
from probe.files import write_tables

Row = TypeVar("Row")

_GROUPS, _ROWS = 2, 16
"""How many groups, and how many rows as Python objects, are kept in memory."""


def write_groups(
    path: str | Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema, size: Callable[[Mapping[str, Any]], int]
) -> Path:
    """Write rows as a Parquet file, group by group, with only one group in memory.

    Args:
        path: the file; a reader sees either the old file or the complete new one.
        rows: the rows, taken one by one.
        schema: the columns, and metadata of the file.
        size: returns the size of a row; a group ends before the sum of its sizes exceeds :data:`GROUP`.
    """

    def groups() -> Iterator[pa.Table]:
        group: list[Mapping[str, Any]] = []
        full = 0
        for row in rows:
            if group and full + size(row) > GROUP:
                yield pa.Table.from_pylist(group, schema=schema)
                group, full = [], 0
            group.append(row)
            full += size(row)
        yield pa.Table.from_pylist(group, schema=schema)

    return write_tables(path, groups(), regroup=False)


GROUP = 2**17
"""The size of a group: about a megabyte for tokens and their text."""


class StoredRows(Sequence[Row], Generic[Row]):
    """Some rows of a Parquet file, read on demand; a few are kept in memory.

    Args:
        path: the file.
        make: makes a row from its values.
        rows: the numbers of the rows, in order; None for all rows of the file.

    Raises:
        ProbeError: if the file is missing or is not Parquet.
    """

    def __init__(self, path: str | Path, make: Callable[[dict[str, Any]], Row], rows: Sequence[int] | None = None):
        self.path, self._make = Path(path), make
        self._file = self._opened().metadata
        self._rows: Sequence[int] = range(self._file.num_rows) if rows is None else rows
        self._groups: OrderedDict[int, pa.Table] = OrderedDict()
        self._made: OrderedDict[int, Row] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return (self._row(number) for number in self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredRows[Row]": ...
    def __getitem__(self, index: int | slice) -> "Row | StoredRows[Row]":
        if isinstance(index, slice):
            return self.only(range(len(self))[index])
        return self._row(self._rows[index])

    def only(self, places: Sequence[int]) -> "StoredRows[Row]":
        """The rows at some places, in that order; nothing is read."""
        return StoredRows(self.path, self._make, [self._rows[place] for place in places])

    @property
    def about(self) -> dict[str, str]:
        """The metadata of the file."""
        return {key.decode(): value.decode() for key, value in (self._file.metadata or {}).items()}

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self._opened().schema_arrow.names)

    def column(self, name: str) -> list[Any]:
        """The values of one column, without reading the others."""
        with _reading(self.path):
            values = pq.read_table(self.path, columns=[name])[name]
        return values.take(pa.array(self._rows, pa.int64())).to_pylist()

    def lengths(self, name: str) -> list[int]:
        """The length of each list in a column; one group is read at a time."""
        found: list[int] = []
        for group in range(self._file.num_row_groups):
            with _reading(self.path):
                lists = self._opened().read_row_group(group, columns=[name])[name]
            found += pc.call_function("list_value_length", [lists]).to_pylist()
        return [found[number] for number in self._rows]

    @cached_property
    def _begins(self) -> list[int]:
        """The number of the first row of each group, followed by the number of rows."""
        begins = [0]
        for group in range(self._file.num_row_groups):
            begins.append(begins[-1] + self._file.row_group(group).num_rows)
        return begins

    def _row(self, number: int) -> Row:
        if number in self._made:
            return self._made[number]
        group = bisect_right(self._begins, number) - 1
        table = self._group(group)
        (values,) = table.slice(number - self._begins[group], 1).to_pylist()
        made = self._made[number] = self._make(values)
        if len(self._made) > _ROWS:
            self._made.popitem(last=False)
        return made

    def _group(self, group: int) -> pa.Table:
        table = self._groups.get(group)
        if table is None:
            with _reading(self.path):
                table = self._groups[group] = self._opened().read_row_group(group)
            if len(self._groups) > _GROUPS:
                self._groups.popitem(last=False)
        return table

    def _opened(self) -> pq.ParquetFile:
        with _reading(self.path):
            return pq.ParquetFile(self.path, metadata=vars(self).get("_file"))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Report in one line if a file cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise ProbeError(f"{path} does not exist") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        said = (str(error).splitlines() or ["damaged"])[0]
        raise ProbeError(f"{path} cannot be read ({said}); delete it to make it again") from None

"""The rows of a site across all shards, read from disk when they are used, and work on rows chunk by chunk."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_CHUNK = 2**26
"""The size of a chunk of rows in float32, in bytes."""


class Rows:
    """Several tensors, indexed as if they were one; parts that are views of files stay on disk until they are read.

    ``rows[3]``, ``rows[10:20]`` and ``rows[index]`` are tensors of the parts' dtype. A slice inside one part is a view
    of it; anything else is a copy.

    Args:
        parts: at least one tensor ``[row, width]``.

    >>> rows = Rows([torch.zeros(2, 4), torch.ones(3, 4)])
    >>> rows.shape, rows[1:3].shape, rows[torch.tensor([4, 0])].sum(1).tolist()
    (torch.Size([5, 4]), torch.Size([2, 4]), [4.0, 0.0])
    """

    def __init__(self, parts: Sequence[Float[Tensor, "_ width"]]) -> None:
        self.parts = tuple(parts)
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def shape(self) -> torch.Size:
        """Rows and width."""
        return torch.Size((len(self), self.parts[0].shape[1]))

    @property
    def dtype(self) -> torch.dtype:
        return self.parts[0].dtype

    def __getitem__(self, at: int | slice | Sequence[int] | Int[Tensor, " chosen"] | Bool[Tensor, " row"]) -> Tensor:
        """A row, ``[width]``, or rows, ``[chosen, width]``.

        Raises:
            IndexError: if there is no such row.
        """
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            chosen = range(start, stop, step)
            return self._range(start, stop) if step == 1 else self._chosen(torch.tensor(chosen, dtype=torch.long))
        if isinstance(at, int):
            return self._chosen(torch.tensor([at]))[0]
        at = torch.as_tensor(at)
        if at.dtype == torch.bool:
            if len(at) != len(self):
                raise IndexError(f"a mask of {len(at)} does not fit {len(self)} rows")
            at = at.nonzero()[:, 0]
        return self._chosen(at.long())

    def tensor(self) -> Float[Tensor, "row width"]:
        """All rows as one tensor: the part itself if there is only one, otherwise a copy in memory."""
        return self.parts[0] if len(self.parts) == 1 else torch.cat(self.parts)

    def first(self, n: int) -> "Rows":
        """The first ``n`` rows, not yet read."""
        begins = [end - len(part) for part, end in zip(self.parts, self._ends.tolist(), strict=True)]
        kept = [part[: n - begin] for part, begin in zip(self.parts, begins, strict=True) if begin < n]
        return Rows(kept or [self.parts[0][:0]])

    def _range(self, start: int, stop: int) -> Tensor:
        parts = []
        for part, end in zip(self.parts, self._ends.tolist(), strict=True):
            begin = end - len(part)
            if start < end and stop > begin:
                parts.append(part[max(start - begin, 0) : stop - begin])
        return parts[0] if len(parts) == 1 else torch.cat([self.parts[0][:0], *parts])

    def _chosen(self, at: Int[Tensor, " chosen"]) -> Tensor:
        n = len(self)
        if len(at) and not (-n <= int(at.min()) and int(at.max()) < n):
            raise IndexError(f"there are only {n} rows")
        # Read in file order, part by part, because neighbouring rows share a page.
        rising, order = at.where(at >= 0, at + n).sort()
        edges = [0, *torch.searchsorted(rising, self._ends).tolist()]
        out = torch.empty(len(at), self.shape[1], dtype=self.dtype)
        for part, end, first, last in zip(self.parts, self._ends.tolist(), edges, edges[1:], strict=False):
            if first < last:
                out[order[first:last]] = part[rising[first:last] - (end - len(part))]
        return out

    def __repr__(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        return f"Rows({len(self)} × {self.shape[1]}, {name}, in {len(self.parts)} parts)"


def in_chunks(x: Rows | Float[Tensor, "row width"]) -> Iterator[Float[Tensor, "_ width"]]:
    """Yield the rows in consecutive chunks, each of at most 64 MB in float32; one empty chunk if there are no rows.

    >>> [len(chunk) for chunk in in_chunks(torch.zeros(20, 2**20))]
    [16, 4]
    """
    n = _at_once(x.shape[1])
    for start in range(0, max(len(x), 1), n):
        yield x[start : start + n]


def chosen_chunks(rows: Rows, chosen: Int[Tensor, " chosen"]) -> Iterator[Float[Tensor, "_ width"]]:
    """Yield chosen rows, in the order in which they are given, in chunks of at most 64 MB in float32.

    Args:
        chosen: the numbers of the rows.
    """
    return (rows[some] for some in chosen.split(_at_once(rows.shape[1])))


def by_rows(work: Callable[[Tensor], Tensor], x: Rows | Float[Tensor, "*batch width"]) -> Tensor:
    """Apply row-wise work chunk by chunk, so that what it holds inside does not grow with the number of rows.

    Args:
        work: takes ``[row, width]`` and returns a tensor with one entry for each row.
        x: the rows. A tensor of another number of dimensions is worked on as a whole.
    """
    if isinstance(x, Tensor) and (x.ndim != 2 or len(x) <= _at_once(x.shape[1])):
        return work(x)
    return torch.cat([work(chunk) for chunk in in_chunks(x)])


def _at_once(width: int) -> int:
    return max(1, _CHUNK // (4 * max(1, width)))

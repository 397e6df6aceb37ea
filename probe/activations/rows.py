"""The rows of a site across all shards, read from disk when they are used."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


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
        """All rows, read into memory."""
        return torch.cat(self.parts)

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

"""What the writers of a model add to the residual stream, kept small: heads before the output projection.

The outputs of all heads are as many tensors of the model's width as it has heads; before the output projection they are
one. They are projected again where they are read, a few blocks and some tokens at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from probe.models import fitting

OutputWeights = Float[Tensor, "heads d_head d_model"]


@dataclass(frozen=True)
class Streams:
    """What each writer of a model adds to the residual stream, in the order of the graph's writers.

    Attributes:
        embed: what the embedding adds, ``[batch, some, d_model]``.
        heads: for each block, its heads before the output projection, ``[batch, some, heads, d_head]``.
        mlp: for each block, what its MLP adds, ``[batch, some, d_model]``.
        weights: for each block, the output projection of its heads.
        room: the bytes that projected heads may take.
        memo: what heads add after the output projection, by the row of a block's first head; None where it is projected
            again each time.
    """

    embed: Tensor
    heads: list[Tensor]
    mlp: list[Tensor]
    weights: Sequence[OutputWeights]
    room: int
    memo: "dict[int, Tensor] | None" = None

    def remembering(self, limit: int) -> "Streams":
        """The same streams, which keep projected heads if those of all blocks take at most so many bytes."""
        size = len(self.weights) * len(self.weights[0]) * self.embed.nbytes
        return replace(self, memo={} if size <= limit else None)

    @property
    def some(self) -> int:
        """The number of tokens."""
        return self.embed.shape[1]

    def __sub__(self, other: "Streams") -> "Streams":
        return replace(
            self,
            embed=self.embed - other.embed,
            heads=[a - b for a, b in zip(self.heads, other.heads, strict=True)],
            mlp=[a - b for a, b in zip(self.mlp, other.mlp, strict=True)],
            memo=None,
        )

    def __add__(self, other: "Streams") -> "Streams":
        return replace(
            self,
            embed=self.embed + other.embed,
            heads=[a + b for a, b in zip(self.heads, other.heads, strict=True)],
            mlp=[a + b for a, b in zip(self.mlp, other.mlp, strict=True)],
            memo=None,
        )

    def pieces(self, rows: slice) -> Iterator[tuple[slice, slice, Float[Tensor, "rows batch piece d_model"]]]:
        """What a range of writers adds, as many writers and tokens at a time as fit into the room.

        Args:
            rows: the range of writers; it contains all heads of a block or none.

        Yields:
            A range of writers, a range of tokens, and what these writers add at these tokens.
        """
        room = self.room // max(1, self.embed.nbytes)
        units = [(low, high) for low, high in self._units() if rows.start <= low < rows.stop]
        for group in fitting(units, lambda unit: unit[1] - unit[0], room):
            largest = max(high - low for low, high in group)
            tokens = self.some if len(group) > 1 else min(self.some, max(1, self.some * room // largest))
            for start in range(0, self.some, tokens):
                piece = slice(start, start + tokens)
                yield slice(group[0][0], group[-1][1]), piece, torch.cat([self._added(low, piece) for low, _ in group])

    def row(self, row: int) -> Float[Tensor, "batch some d_model"]:
        """What one writer adds."""
        if row == 0:
            return self.embed
        layer, head = divmod(row - 1, len(self.weights[0]) + 1)
        if head == len(self.weights[layer]):
            return self.mlp[layer]
        return self.heads[layer][:, :, head] @ self.weights[layer][head]

    def with_row(self, row: int, other: "Streams") -> "Streams":
        """These writers, except that one of them adds what it adds in other streams."""
        if row == 0:
            return replace(self, embed=other.embed, memo=None)
        layer, head = divmod(row - 1, len(self.weights[0]) + 1)
        if head == len(self.weights[layer]):
            return replace(self, mlp=[*self.mlp[:layer], other.mlp[layer], *self.mlp[layer + 1 :]], memo=None)
        changed = self.heads[layer].clone()
        changed[:, :, head] = other.heads[layer][:, :, head]
        return replace(self, heads=[*self.heads[:layer], changed, *self.heads[layer + 1 :]], memo=None)

    def all_rows(self) -> Float[Tensor, "writers batch some d_model"]:
        """What every writer adds, in one tensor; only for few tokens."""
        return torch.cat([self._added(low, slice(None)) for low, _ in self._units()])

    def _units(self) -> list[tuple[int, int]]:
        """The rows of the embedding, and of each block's heads and MLP."""
        n_heads, found = len(self.weights[0]), [(0, 1)]
        for layer in range(len(self.weights)):
            first = 1 + layer * (n_heads + 1)
            found += [(first, first + n_heads), (first + n_heads, first + n_heads + 1)]
        return found

    def _added(self, low: int, piece: slice) -> Float[Tensor, "rows batch piece d_model"]:
        """What the embedding, a block's heads or its MLP adds, whose first row is ``low``."""
        if low == 0:
            return self.embed[None, :, piece]
        layer, head = divmod(low - 1, len(self.weights[0]) + 1)
        if head == len(self.weights[0]):
            return self.mlp[layer][None, :, piece]
        if self.memo is None:
            return torch.einsum("bphe,hed->hbpd", self.heads[layer][:, piece], self.weights[layer])
        if low not in self.memo:
            self.memo[low] = torch.einsum("bphe,hed->hbpd", self.heads[layer], self.weights[layer])
        return self.memo[low][:, :, piece]

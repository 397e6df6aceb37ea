"""A model as a graph of writers to and readers of the residual stream.

Writers are the embedding, every attention head and every MLP. Readers are the queries, keys and values of every head
(one reader for each group of heads that share keys and values), every MLP, and the logits. An edge is what one writer
contributes to the input of one later reader.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool
from torch import Tensor

from probe.config import nearest
from probe.errors import ProbeError

EMBED, LOGITS = "embed", "logits"


@dataclass(frozen=True)
class Reader:
    """A place that reads the residual stream.

    Attributes:
        layer: the block, counted from 0; the number of blocks for the logits.
        slot: ``q``, ``k``, ``v``, ``mlp`` or ``logits``.
        head: the head of a query, key or value; the group where heads share keys and values.
    """

    layer: int
    slot: str
    head: int = 0


@dataclass(frozen=True)
class Graph:
    """The writers and readers of a decoder in which each block's attention comes before its MLP.

    Attributes:
        n_layers: number of blocks.
        n_heads: number of attention heads of a block.
        n_groups: number of key and value heads of a block.
    """

    n_layers: int
    n_heads: int
    n_groups: int

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """The names of the writers in the order in which they write: ``embed``, ``a0.h0`` …, ``m0``, …"""
        return (EMBED, *(name for layer in range(self.n_layers) for name in self._of_block(layer)))

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        """The readers in the order in which they read."""
        found: list[Reader] = []
        for layer in range(self.n_layers):
            found += [Reader(layer, "q", head) for head in range(self.n_heads)]
            found += [Reader(layer, slot, group) for slot in "kv" for group in range(self.n_groups)]
            found.append(Reader(layer, "mlp"))
        return (*found, Reader(self.n_layers, LOGITS))

    @cached_property
    def edges(self) -> Bool[Tensor, "writers readers"]:
        """True where the writer comes before the reader."""
        there = torch.zeros(len(self.writers), len(self.readers), dtype=torch.bool)
        for column, reader in enumerate(self.readers):
            there[: self.seen_by(reader), column] = True
        return there

    def __len__(self) -> int:
        """The number of edges."""
        return int(self.edges.sum())

    def seen_by(self, reader: Reader) -> int:
        """The number of writers that come before a reader; these are the first ones."""
        before = 1 + reader.layer * (self.n_heads + 1)
        return before + self.n_heads if reader.slot == "mlp" else before

    def columns(self, layer: int, slot: str) -> slice:
        """The columns of the readers of one block and slot.

        Args:
            layer: the block, counted from 0; the number of blocks for the logits.
            slot: ``q``, ``k``, ``v``, ``mlp`` or ``logits``.
        """
        size = self.n_heads + 2 * self.n_groups + 1
        first = layer * size
        start, n = {
            "q": (first, self.n_heads),
            "k": (first + self.n_heads, self.n_groups),
            "v": (first + self.n_heads + self.n_groups, self.n_groups),
            "mlp": (first + size - 1, 1),
            LOGITS: (first, 1),
        }[slot]
        return slice(start, start + n)

    def name(self, reader: Reader) -> str:
        """The name of a reader: ``a2.h3<q>``, ``a2.g0<k>`` for keys that several heads share, ``m1`` or ``logits``."""
        if reader.slot == LOGITS:
            return LOGITS
        if reader.slot == "mlp":
            return f"m{reader.layer}"
        shared = reader.slot != "q" and self.n_groups < self.n_heads
        return f"a{reader.layer}.{'g' if shared else 'h'}{reader.head}<{reader.slot}>"

    def heads_of(self, reader: Reader) -> Sequence[int]:
        """The heads that use a reader of queries, keys or values."""
        if reader.slot == "q":
            return [reader.head]
        each = self.n_heads // self.n_groups
        return range(reader.head * each, (reader.head + 1) * each)

    def written_by(self, reader: Reader) -> list[str]:
        """The names of the writers whose output depends on a reader; ``logits`` for the logits."""
        if reader.slot == LOGITS:
            return [LOGITS]
        if reader.slot == "mlp":
            return [f"m{reader.layer}"]
        return [f"a{reader.layer}.h{head}" for head in self.heads_of(reader)]

    def edge(self, name: str) -> tuple[int, int]:
        """The row and column of an edge, given its name, such as ``a0.h1->a2.h3<q>``.

        Raises:
            ProbeError: if there is no such writer or reader, naming the nearest; or the writer does not come first.
        """
        writer, _, reader = name.partition("->")
        readers = {self.name(each): column for column, each in enumerate(self.readers)}
        for part, known in ((writer, self.writers), (reader, readers)):
            if part not in known:
                raise ProbeError(f"there is no {part!r} in this graph; {nearest(part, known)}")
        row, column = self.writers.index(writer), readers[reader]
        if not self.edges[row, column]:
            raise ProbeError(f"{writer} does not come before {reader}")
        return row, column

    def named(self) -> Iterator[tuple[str, int, int]]:
        """The name, row and column of every edge."""
        for row, column in self.edges.nonzero().tolist():
            yield f"{self.writers[row]}->{self.name(self.readers[column])}", row, column

    def _of_block(self, layer: int) -> list[str]:
        return [*(f"a{layer}.h{head}" for head in range(self.n_heads)), f"m{layer}"]

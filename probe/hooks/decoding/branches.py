"""Rows that continue one text from many of its places, without running the text again.

The text, the *trunk*, is run once. A row that leaves it after p tokens starts with a copy of the first p columns of the
trunk's keys and values: they depend on those tokens alone, and on their positions, which stay the same. Two rows with
the same tokens are one row until they differ, and are copied then.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.hooks.decoding.room import fitting_rows, logit_rows, prompt_tokens, row_bytes, rows_of_pass
from probe.hooks.decoding.row_cache import RowCache, with_room
from probe.hooks.passes import followed
from probe.hooks.upper import causal_masks
from probe.models import Model, check_frequencies, fitting, halving

_SPARE = 8
"""A cache of which no more rows than these are free is not made smaller."""


@dataclass
class TokenForwards:
    """How many tokens a model has run: the cost of decoding, whatever the machine.

    Attributes:
        prefix: tokens of the texts that were continued.
        decoded: new tokens, each counted once for all samples that share it and everything before it.
    """

    prefix: int = 0
    decoded: int = 0

    @property
    def total(self) -> int:
        """All tokens that were run."""
        return self.prefix + self.decoded


def can_branch(model: Model) -> bool:
    """Whether the cache of a text can be cut.

    The state of a linear-attention layer cannot: it has no column for each token. Nor can a text be run in parts while
    an open capture or edit depends on tokens.
    """
    return not model.state_layers and not followed(model.hf)


class Branches:
    """The cached trunk, and the rows that have left it.

    Args:
        model: a model with :func:`can_branch`.
        trunk: the token ids of the text, its prompt included.
        longest: the largest number of tokens that a row may have.
        spent: counts the tokens that are run.
    """

    def __init__(self, model: Model, trunk: Sequence[int], longest: int, spent: TokenForwards) -> None:
        check_frequencies(model.hf, max(len(trunk), longest - 1))  # the last token is never run
        self.model, self.trunk, self.spent = model, list(trunk), spent
        self.longest = max(longest, len(trunk))
        self._trunk = RowCache(1, model.device)
        self._rows = RowCache(0, model.device)
        self._free: list[int] = []
        self._most = 1
        """The number of rows that memory is taken for; more only if they are asked for."""

    def slots(self, most: int) -> int:
        """The number of rows that memory allows beside the trunk, at most ``most``."""
        self._most = max(1, fitting_rows([(self.model, row_bytes(self.model, self.longest))], most + 1) - 1)
        return self._most

    @torch.no_grad()
    def run_trunk(self, first: int) -> Iterator[tuple[int, Float[Tensor, "some vocab"]]]:
        """Run the trunk in parts, and keep its columns.

        Args:
            first: the first token whose logits are needed.

        Yields:
            The index of a token, and the logits at that token and at those after it in its part.
        """
        cache, ids = self._trunk, torch.tensor([self.trunk], dtype=torch.long, device=self.model.device)
        cache.reserve(len(self.trunk), most=len(self.trunk), stay=True)
        cache.arrive(torch.zeros(1, dtype=torch.long, device=cache.begin.device), torch.zeros_like(cache.begin))
        room = prompt_tokens(self.model)
        few = min(room, logit_rows(self.model))
        while cache.column < len(self.trunk):
            start = cache.column
            wanted = start >= first
            end = min(len(self.trunk), start + few) if wanted else min(first, start + room)

            run = partial(self._run_some, cache, ids[:, start:end], wanted)
            logits = halving(run, end - start, device=self.model.device, what="reading the text that is continued")
            done = cache.column - start
            self.spent.prefix += done
            if done < end - start:  # memory ran out
                room, few = min(room, done), min(few, done)
            if wanted:
                yield start, logits[0]

    def _run_some(
        self, cache: RowCache, ids: Int[Tensor, "one columns"], wanted: bool, columns: int
    ) -> Float[Tensor, "one keep vocab"]:
        """Run the first columns of some, and return the logits at all of them, or at the last one."""
        return self._run(cache, ids[:, :columns], keep=columns if wanted else 1)

    def _run(self, cache: RowCache, ids: Int[Tensor, "some columns"], keep: int) -> Float[Tensor, "some keep vocab"]:
        """Run the next columns, and return the logits at the last ``keep`` of them."""
        start, end = cache.column, cache.column + ids.shape[1]
        out = self.model.hf(
            input_ids=ids,
            attention_mask=causal_masks(self.model, cache.real(cache.first, end), ids.shape[1]),
            position_ids=cache.positions(start, end),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        cache.settle()
        cache.column = end
        return out.logits[:, -keep:].float()

    def drop(self, most: int) -> None:
        """End all rows, and take memory for at most so many from now on."""
        self._rows, self._free, self._most = RowCache(0, self.model.device), [], most

    @torch.no_grad()
    def admit(self, texts: Sequence[Sequence[int]], cuts: Sequence[int]) -> list[int]:
        """Begin rows.

        Args:
            texts: the tokens of each row, at least one.
            cuts: how many of them are the first tokens of the trunk.

        Returns:
            The number of each row. Its last token waits for :meth:`step`; the others are in the cache.
        """
        rows, cache = self._take(len(texts)), self._rows
        held = [len(text) - 1 for text in texts]
        width = max(held)
        cache.trim()
        if width > cache.column:
            cache.move(width - cache.column + cache.first, with_room(width))
        cache.first = min(cache.first, cache.column - width)
        places = torch.tensor(rows, device=cache.begin.device)
        cache.arrive(places, torch.tensor(held, device=cache.begin.device))
        run = [len(text) - 1 - min(cut, len(text) - 1) for text, cut in zip(texts, cuts, strict=True)]
        most = max(1, *run)
        for group in _alike(run, rows_of_pass(self.model, most) * most):
            again = max(run[i] for i in group)
            self._copy_trunk([rows[i] for i in group], [max(0, held[i] - again) for i in group], again)
            if again:
                self._run_last([rows[i] for i in group], [texts[i][:-1] for i in group], again)
        return rows

    def _copy_trunk(self, rows: Sequence[int], lengths: Sequence[int], again: int) -> None:
        """Copy the first columns of the trunk into rows, so that they end ``again`` columns before the newest."""
        cache = self._rows
        by_length: dict[int, list[int]] = {}
        for row, length in zip(rows, lengths, strict=True):
            by_length.setdefault(length, []).append(row)
        end = cache.column - again
        for name, store in self._trunk.stores.items():
            if name not in cache.stores:
                cache.stores[name] = store.new_zeros(len(cache.begin), store.shape[1], cache.capacity, store.shape[-1])
            for length, some in by_length.items():
                if length:
                    to = torch.tensor(some, device=store.device)
                    cache.stores[name][to, :, end - length : end] = store[:, :, :length]

    def _run_last(self, rows: Sequence[int], texts: Sequence[Sequence[int]], columns: int) -> None:
        """Run the last tokens of texts whose other columns are there."""
        ids = torch.full((len(rows), columns), self.model.pad_id)
        for at, text in enumerate(texts):
            last = torch.tensor(text[-columns:])
            ids[at, columns - len(last) :] = last
            self.spent.prefix += len(last)
        cache = self._rows
        cache.rows, cache.column = torch.tensor(rows, device=cache.begin.device), cache.column - columns
        try:
            self._run(cache, ids.to(self.model.device), keep=1)
        finally:
            cache.rows = None

    @torch.no_grad()
    def step(self, rows: Sequence[int], tokens: Sequence[int]) -> Float[Tensor, "rows vocab"]:
        """Run one more token in every active row, and return the logits at it.

        Args:
            rows: the numbers of all active rows.
            tokens: the token of each of them.
        """
        cache = self._rows
        cache.reserve(1)
        there = torch.tensor(rows, device=cache.begin.device)
        ids = torch.full((len(cache.begin), 1), self.model.pad_id, device=self.model.device)
        ids[there, 0] = torch.tensor(tokens, device=ids.device)
        self.spent.decoded += len(rows)
        return self._run(cache, ids, keep=1)[there, -1]

    @torch.no_grad()
    def copy(self, rows: Sequence[int]) -> list[int]:
        """Copy rows, and return the numbers of the copies. A row may occur several times."""
        if not rows:
            return []
        made, cache = self._take(len(rows)), self._rows
        old, new = (torch.tensor(each, device=cache.begin.device) for each in (rows, made))
        cache.begin[new] = cache.begin[old]
        cache.copy(old, new, int(cache.column - cache.begin[old].min()))
        return made

    def end(self, rows: Sequence[int]) -> None:
        """End rows; their places are free for others."""
        if rows:
            gone = torch.ones_like(self._rows.begin, dtype=torch.bool)
            gone[rows] = False
            self._rows.leave(gone.nonzero()[:, 0])
            self._free += rows

    def pack(self, rows: Sequence[int]) -> list[int]:
        """Give back the memory of ended rows if they are most of the cache.

        Args:
            rows: the numbers of all active rows.

        Returns:
            Their numbers from now on.
        """
        cache = self._rows
        if len(rows) * 2 + _SPARE >= len(cache.begin):
            return list(rows)
        cache.keep(torch.tensor(rows, dtype=torch.long, device=cache.begin.device))
        self._free = []
        return list(range(len(rows)))

    def _take(self, n: int) -> list[int]:
        """Free rows; the cache grows if there are too few."""
        cache = self._rows
        if n > len(self._free):
            there = len(cache.begin)
            more = max(n - len(self._free), min(there // 4, self._most - there))
            self._free += range(there, there + more)
            if there:  # what the new rows hold does not matter
                cache.keep(torch.arange(there + more, device=cache.begin.device).clamp(max=there - 1))
                free = set(self._free)
                cache.leave(torch.tensor([row for row in range(there) if row not in free]).to(cache.begin))
            else:
                self._rows = RowCache(more, self.model.device)
        taken, self._free = self._free[:n], self._free[n:]
        return taken


def _alike(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Groups of the indices of numbers, none of which has more than twice the smallest, and whose size fits."""
    order = sorted(range(len(widths)), key=lambda i: widths[i])
    for _, some in groupby(order, lambda i: widths[i].bit_length()):
        yield from fitting(list(some), lambda i: max(1, widths[i]), room)

"""The result of a capture: for each site the state of every token, whole, selected or pooled."""

import html
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from probe.errors import ProbeError
from probe.hooks.passes import Pass
from probe.hooks.selection import Selected, Selector
from probe.models import Site

_NEVER = torch.iinfo(torch.long).max
Pool = Literal["mean", "sum", "max", "last"]
"""How the tokens of a row or span are pooled to one vector."""


class NotCaptured(ProbeError, KeyError):
    """Nothing was captured at the requested site."""

    __str__ = Exception.__str__


@dataclass
class _Part:
    """The state of one pass at a site."""

    state: Tensor
    """``[batch, width, ...]`` if whole, ``[token, ...]`` if selected."""
    past: int
    """The number of columns that ran before."""
    rows: Tensor | None
    """The rows it ran, numbered as the batch began, if it ran only some of them."""
    found: Selected | None
    """The selected tokens."""
    kept: Tensor | None
    """The tensor in the model, kept for its gradient."""


class Captured(Mapping[str, Tensor]):
    """The states that `capture` recorded, by site: ``acts["resid_post.2"]``.

    Whole states are ``[batch, pos, ...]``; selected ones ``[token, ...]``, by row and then by position; pooled ones
    ``[row, ...]`` or ``[span, ...]``, without rows or spans that have no selected token. They belong to the newest
    text: a pass on a filled key/value cache is appended, and a pass that begins a text replaces what was there.
    """

    def __init__(self, sites: Iterable[Site], selector: Selector | None, pool: Pool | None, grad: bool) -> None:
        if pool is not None and selector is None:
            raise ProbeError(f"pool={pool!r} needs tokens; say which to pool, e.g. tokens=Tokens(phase='prompt')")
        if pool is not None and pool not in ("mean", "sum", "max", "last"):
            raise ProbeError(f"unknown pool '{pool}'; use mean, sum, max or last")
        spans = selector is not None and any(clause.spans is not None for clause in selector.selection.clauses)
        if pool is not None and spans and selector is not None and not selector.by_span:
            raise ProbeError("to pool by span, give tokens as a single clause with all the spans")
        self.sites = tuple(sites)
        self._selector, self._keep = selector, grad
        self._pool: Pool | None = pool
        self._parts: dict[str, list[_Part]] = {}
        self._ready: dict[str, Tensor] = {}
        self._past = 0

    def begin(self, past: int) -> None:
        """Start a pass; called by `capture`.

        Args:
            past: the number of columns that ran before; 0 starts a new text.
        """
        self._past = past
        if past == 0:
            self._parts, self._ready = {}, {}

    def take(self, site: Site, hidden: Tensor, now: Pass | None, rows: Tensor | None) -> None:
        """Record the state of a site in the current pass; called by `capture`.

        Args:
            hidden: the state at the site.
            now: the current pass; needed to select tokens.
            rows: the rows that the pass runs, if it runs only some.
        """
        name = str(site)
        self._ready.pop(name, None)
        kept = found = None
        if self._keep:
            if not hidden.requires_grad and torch.is_grad_enabled() and hidden.is_floating_point():
                hidden.requires_grad_()
            if hidden.requires_grad:
                hidden.retain_grad()
            kept = hidden
        else:
            hidden = hidden.detach()
        if self._selector is not None and now is not None:
            found, hidden = self._select(site, hidden, now)
        self._parts.setdefault(name, []).append(_Part(hidden, self._past, rows, found, kept))

    def _select(self, site: Site, hidden: Tensor, now: Pass) -> tuple[Selected, Tensor]:
        assert self._selector is not None
        found = self._selector.selected(now)
        if missing := columns_missing(site, hidden, now):
            there = found.column >= missing
            found = Selected(found.row[there], found.column[there], found.where[there])
        return found, hidden[found.row, found.column - missing]

    def __getitem__(self, site: str | Site) -> Tensor:
        name = str(site)
        if name not in self._parts:
            asked, seen = ", ".join(map(str, self.sites)), ", ".join(self) or "none yet"
            raise NotCaptured(f"nothing was captured at {site}; asked for: {asked}; seen: {seen}")
        if name not in self._ready:
            parts = self._parts[name]
            if self._selector is None:
                self._ready[name] = parts[0].state if len(parts) == 1 else _joined(name, parts)
            else:
                where, order = self._order(name)
                states = torch.cat([part.state for part in parts])[order]
                self._ready[name] = states if self._pool is None else _pooled(states, where[:, 2], self._pool)
        return self._ready[name]

    def latest(self, site: str | Site) -> Tensor:
        """The state in the newest pass only, ``[batch, width, ...]``; useful in a ``Tokens(mask=...)`` function.

        Raises:
            ProbeError: if the newest pass has not reached the site, or the capture selects tokens.
        """
        parts = self._parts.get(str(site))
        if self._selector is not None:
            raise ProbeError(f"to read {site} in the newest pass, capture it whole, without tokens")
        if not parts or parts[-1].past != self._past:
            raise ProbeError(f"the newest pass has not reached {site}; a mask can only read sites before its own")
        return parts[-1].state

    def grad(self, site: str | Site) -> Tensor:
        """The gradient at a site after ``backward()``, whole: ``[batch, pos, ...]``.

        With activation checkpointing, call ``backward()`` inside the block, because activations are recomputed then.

        Raises:
            ProbeError: if the capture does not keep gradients, or none has reached the site.
        """
        kept = [part.kept for part in self._parts.get(str(site), ()) if part.kept is not None]
        if not kept or not kept[0].requires_grad:
            raise ProbeError(f"no gradient is kept at {site}; capture it with grad=True, outside torch.no_grad()")
        grads = [each.grad for each in kept if each.grad is not None]
        if len(grads) < len(kept):
            raise ProbeError(f"no gradient has reached {site}; call backward() on something that depends on it")
        return torch.cat(grads, 1)

    @property
    def rows(self) -> Int[Tensor, " token"]:
        """The row in the batch of each selected token or pooled vector."""
        return self._told(0)

    @property
    def positions(self) -> Int[Tensor, " token"]:
        """The position of each selected token; for a pooled vector, the position of its first token."""
        return self._told(1)

    @property
    def spans(self) -> Int[Tensor, " token"]:
        """The number of the span of each selected token or pooled vector, counted over all rows.

        Raises:
            ProbeError: if tokens were not selected by spans.
        """
        if self._selector is None or not self._selector.by_span:
            raise ProbeError("only tokens selected by spans have span numbers; capture with tokens=Tokens(spans=...)")
        return self._told(2)

    def _told(self, column: int) -> Tensor:
        if self._selector is None or not self._parts:
            raise ProbeError("only selected tokens have rows and positions; capture with tokens=...")
        name, *others = self._parts
        where, _ = self._order(name)
        if any(not torch.equal(where, self._order(other)[0]) for other in others):
            raise ProbeError("the sites have different tokens (logits may have only the last); capture them apart")
        if self._pool is not None:
            _, counts = where[:, 2].unique_consecutive(return_counts=True)
            where = where[counts.cumsum(0) - counts]
        return where[:, column]

    def _order(self, name: str) -> tuple[Int[Tensor, "token 4"], Int[Tensor, " token"]]:
        """Row, position, group and column of each selected token, sorted, and the order that sorts them.

        If a token was run again (the cache was cut back, or a decoding step repeated), only its last run counts.
        """
        parts = self._parts[name]
        wheres = [part.found.where for part in parts if part.found is not None]
        rows = [where[:, 0] for where in wheres] + [part.rows for part in parts if part.rows is not None]
        n_rows = max((int(each.max()) + 1 for each in rows if len(each)), default=0)
        # From the last pass to the first: each row's smallest column that a later pass has run again.
        again = torch.full((n_rows,), _NEVER, device=wheres[0].device)
        valid = []
        for i in reversed(range(len(parts))):
            past, some = parts[i].past, slice(None) if parts[i].rows is None else parts[i].rows
            wheres[i] = wheres[i].clone()
            wheres[i][:, 3] += past
            valid.append(wheres[i][:, 3] < again[wheres[i][:, 0]])
            again[some] = again[some].clamp(max=past)
        valid.reverse()
        where, good = torch.cat(wheres), torch.cat(valid)
        longest = int(where[:, 1].max()) + 1 if len(where) else 1
        order = (where[:, 0] * longest + where[:, 1]).argsort(stable=True)
        order = order[good[order]]
        return where[order], order

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __contains__(self, site: object) -> bool:
        return str(site) in self._parts

    def _shown(self) -> list[tuple[str, str, str]]:
        """Site, shape and dtype; the number of passes where their states cannot be joined."""
        shown = []
        for site, parts in self._parts.items():
            try:
                shape = str(list(self[site].shape))
            except (ProbeError, RuntimeError):
                shape = f"{len(parts)} passes, the last {list(parts[-1].state.shape)}"
            shown.append((site, shape, str(parts[-1].state.dtype).removeprefix("torch.")))
        return shown

    def __repr__(self) -> str:
        return f"Captured({', '.join(f'{site}: {shape}' for site, shape, _ in self._shown())})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>" for cells in self._shown()
        )
        return f"<table><tr><th>site</th><th>shape</th><th>dtype</th></tr>{rows}</table>"


def columns_missing(site: Site, hidden: Tensor, now: Pass) -> int:
    """Count the first columns of the pass that a state lacks, as when a model gives only the last logits.

    Args:
        hidden: the state at the site.
        now: the current pass.

    Raises:
        ProbeError: if the state does not have one entry for each token.
    """
    missing = now.width - hidden.shape[1] if hidden.ndim > 1 else -1
    head = site.kind == "logits" or site.kind.startswith("lm_head")
    if hidden.ndim < 3 or len(hidden) != len(now.real) or missing < 0 or (missing and not head):
        raise ProbeError(
            f"{site} has shape {list(hidden.shape)} where the pass has {list(now.real.shape)} tokens; "
            "it does not have one state for each token, so leave out tokens"
        )
    return missing


def _joined(name: str, parts: list[_Part]) -> Tensor:
    """Join the passes over one text; of columns that were run again, the last run counts."""
    if not Site.parse(name).by_token:
        raise ProbeError(f"{name} grows with every pass on a cache; run the finished text in one pass to capture it")
    if any(part.rows is None and len(part.state) != len(parts[0].state) for part in parts):
        raise ProbeError(f"rows left the batch while {name} was captured; select tokens with tokens=...")
    begin = parts[0].past
    ends = [part.past - begin + part.state.shape[1] for part in parts]
    whole = parts[0].state.new_empty(len(parts[0].state), max(ends), *parts[0].state.shape[2:])
    columns = 0
    for part, end in zip(parts, ends, strict=True):
        rows = slice(None) if part.rows is None else part.rows
        whole[rows, part.past - begin : end] = part.state
        columns = end if part.rows is None else max(columns, end)
    return whole[:, :columns]


def _pooled(states: Tensor, group: Int[Tensor, " token"], how: Pool) -> Tensor:
    """Pool neighbouring tokens of the same group to one vector; sums are taken in float32."""
    _, counts = group.unique_consecutive(return_counts=True)
    if how == "last" or not len(counts):
        return states[counts.cumsum(0) - 1]
    pooled = torch.segment_reduce(states.float(), how, lengths=counts, axis=0)
    return pooled.to(states.dtype)

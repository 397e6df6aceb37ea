"""What a capture holds: per site the state of every token that was read, whole, selected or pooled."""

import html
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from probe._errors import ProbeError
from probe.hooks.passes import Passes
from probe.hooks.selection import Selector
from probe.models import Site

Pool = Literal["mean", "sum", "max", "last"]
"""How the tokens of a row or span become one vector."""


class Captured(Mapping[str, Tensor]):
    """What the forward passes had at the sites asked for: ``acts["resid_post.2"]``.

    Whole: ``[batch, pos, ...]``. Selected: ``[token, ...]``, by row and then by position. Pooled: ``[row, ...]`` or
    ``[span, ...]``, those without a selected token left out.

    Made by `capture`.
    """

    def __init__(
        self, sites: Iterable[Site], passes: Passes, selector: Selector | None, pool: Pool | None, grad: bool
    ) -> None:
        if pool is not None and selector is None:
            raise ProbeError(f"pool={pool!r} needs tokens: say which tokens to pool, as Tokens(phase='prompt')")
        if pool is not None and pool not in ("mean", "sum", "max", "last"):
            raise ProbeError(f"unknown pool '{pool}'; use mean, sum, max or last")
        self.sites = tuple(sites)
        self._passes, self._selector, self._keep = passes, selector, grad
        self._pool: Pool | None = pool
        self._states: dict[str, list[Tensor]] = {}
        self._whole: dict[str, list[Tensor]] = {}
        self._where: dict[str, list[Tensor]] = {}
        self._ready: dict[str, Tensor] = {}

    def _take(self, name: str, hidden: Tensor) -> None:
        """Note the state of a site in the pass under way."""
        self._ready.pop(name, None)
        if self._passes.begins:
            for kept in (self._states, self._whole, self._where):
                kept.pop(name, None)
        if self._keep:
            if not hidden.requires_grad and torch.is_grad_enabled():
                hidden.requires_grad_()
            if hidden.requires_grad:
                hidden.retain_grad()
            self._whole.setdefault(name, []).append(hidden)
        else:
            hidden = hidden.detach()
        if self._selector is None:
            self._states.setdefault(name, []).append(hidden)
            return
        now = self._passes.now
        mask = self._selector.mask(now)
        mask = mask[:, mask.shape[1] - hidden.shape[1] :]
        row, column = mask.nonzero(as_tuple=True)
        late = now.real.shape[1] - hidden.shape[1]
        span = self._selector.span(now)
        group = now.rows[row] if span is None else span[row, column + late]
        self._states.setdefault(name, []).append(hidden[row, column])
        self._where.setdefault(name, []).append(
            torch.stack([now.rows[row], now.position[row, column + late], group], -1)
        )

    def __getitem__(self, site: str | Site) -> Tensor:
        name = str(site)
        if name not in self._states:
            asked, seen = ", ".join(map(str, self.sites)), ", ".join(self) or "none yet"
            raise ProbeError(f"nothing was captured at {site}; asked for: {asked}; seen: {seen}")
        if name not in self._ready:
            parts = self._states[name]
            if self._selector is None:
                self._ready[name] = parts[0] if len(parts) == 1 else _joined(name, parts)
            else:
                where, order = self._order(name)
                states = torch.cat(parts)[order]
                self._ready[name] = states if self._pool is None else _pooled(states, where[:, 2], self._pool)
        return self._ready[name]

    def latest(self, site: str | Site) -> Tensor:
        """The state in the newest pass only, ``[batch, width, ...]``; for gates that look at another site.

        Raises:
            ProbeError: if there is none, or the capture selects tokens.
        """
        if self._selector is not None or str(site) not in self._states:
            raise ProbeError(f"there is no newest pass at {site}; capture it whole, and run the model")
        return self._states[str(site)][-1]

    def grad(self, site: str | Site) -> Tensor:
        """The gradient at a site after ``backward()``, in the shape of the state in the model: ``[batch, pos, ...]``.

        Raises:
            ProbeError: if the capture was not asked to keep gradients, or none has reached the site.
        """
        whole = self._whole.get(str(site))
        if not whole:
            raise ProbeError(f"no gradient is kept at {site}; capture it with grad=True, outside torch.no_grad()")
        grads = [part.grad for part in whole]
        if any(each is None for each in grads):
            raise ProbeError(f"no gradient has reached {site}; call backward() on something that depends on it")
        return torch.cat([each for each in grads if each is not None], 1)

    @property
    def rows(self) -> Int[Tensor, " token"]:
        """The row of the batch of each selected token, or of each pooled vector."""
        return self._told(0)

    @property
    def positions(self) -> Int[Tensor, " token"]:
        """The position of each selected token; of a pooled vector, that of its first token."""
        return self._told(1)

    def _told(self, column: int) -> Tensor:
        if not self._where:
            raise ProbeError("rows and positions are known of selected tokens; capture with tokens=...")
        where, _ = self._order(next(iter(self._where)))
        if self._pool is not None:
            _, counts = where[:, 2].unique_consecutive(return_counts=True)
            where = where[counts.cumsum(0) - counts]
        return where[:, column]

    def _order(self, name: str) -> tuple[Int[Tensor, "token 3"], Int[Tensor, " token"]]:
        """Row, position and group of each selected token, sorted, and the order that sorts them."""
        where = torch.cat(self._where[name])
        span = int(where[:, 1].max()) + 1 if len(where) else 1
        order = (where[:, 0] * span + where[:, 1]).argsort(stable=True)
        return where[order], order

    def __iter__(self) -> Iterator[str]:
        return iter(self._states)

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, site: object) -> bool:
        return str(site) in self._states

    def __repr__(self) -> str:
        return f"Captured({', '.join(f'{site}: {list(tensor.shape)}' for site, tensor in self.items())})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(site)}</td><td>{list(state.shape)}</td>"
            f"<td>{str(state.dtype).removeprefix('torch.')}</td><td>{state.float().norm(dim=-1).mean():.3g}</td></tr>"
            for site, state in self.items()
        )
        return f"<table><tr><th>site</th><th>shape</th><th>dtype</th><th>mean norm</th></tr>{rows}</table>"


def _joined(name: str, parts: list[Tensor]) -> Tensor:
    if not Site.parse(name).by_token:
        raise ProbeError(f"{name} grows with every pass on a cache; run the finished text in one pass to see it whole")
    if len({len(part) for part in parts}) > 1:
        raise ProbeError(f"rows have left the batch while {name} was captured; select with tokens= instead")
    return torch.cat(parts, 1)


def _pooled(states: Tensor, group: Int[Tensor, " token"], how: Pool) -> Tensor:
    """One vector a group of neighbouring tokens; sums are formed in float32."""
    _, counts = group.unique_consecutive(return_counts=True)
    if how == "last":
        return states[counts.cumsum(0) - 1]
    pooled = torch.segment_reduce(states.float(), how, lengths=counts, axis=0)
    return pooled.to(states.dtype)

"""Which tokens: one language for what is read and for what is written.

A `Tokens` is a clause: all that it names must hold. Clauses are joined with ``|`` and taken away with ``-``, and what
is taken away stays away::

    Tokens(phase="generation") | Tokens(positions=-1)         # all that is generated, and the prompt's last token
    Tokens(window=(0, 64)) - Tokens(ids=[tokenizer.eos_token_id])

Positions count a row's own tokens from 0; padding has none and is never selected. A negative position counts back from
the end of the prompt, so −1 is the prompt's last token, whose state predicts the first generated token. A token is
*generated* when it is read, one pass after it was chosen.
"""

import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from probe.errors import ProbeError
from probe.hooks.passes import Pass

Gate = Callable[[Pass], Tensor]
"""From the pass under way to ``[batch, width]`` booleans."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Tokens:
    """A clause: the tokens for which all of this holds.

    Raises:
        ProbeError: if it says nothing, or something that no token can meet.

    >>> Tokens(phase="generation", ids=[13])
    Tokens(phase='generation', ids=[13])
    """

    phase: str | None = None
    """``prompt``, or ``generation``: what follows it."""

    positions: Any = None
    """At this position, or these; negative ones count back from the end of the prompt."""

    window: Any = None
    """``(start, stop)``: from one position up to but not including another, numbered likewise; ``None`` for an open
    end."""

    steps: Any = None
    """The generated token of this number, from 0, or of these; or booleans ``[row, step]``."""

    ids: Any = None
    """Tokens of this id, or of these."""

    spans: Sequence[Any] | None = None
    """Per row of the batch, a list of spans of positions, each half open: sentences, for instance."""

    gate: Tensor | Gate | None = None
    """Booleans ``[row, position]`` (beyond their end: no); or a function of the `Pass` under way."""

    def __post_init__(self) -> None:
        if not self._said():
            raise ProbeError("an empty Tokens() selects nothing in particular; leave tokens out to select all")
        if self.phase not in (None, "prompt", "generation"):
            raise ProbeError(f"unknown phase '{self.phase}'; use prompt or generation")
        for name in ("positions", "ids", "steps"):
            if not (name == "steps" and isinstance(self.steps, Tensor) and self.steps.ndim) and not self._listed(name):
                raise ProbeError(f"the clause selects no {name}; give at least one")
        if self.window is not None:
            _check_window(self.window)
        for row in self.spans or ():
            _check_spans(row)

    def __or__(self, other: "Tokens | Selection") -> "Selection":
        return Selection((self,)) | other

    def __sub__(self, other: "Tokens | Selection") -> "Selection":
        return Selection((self,)) - other

    def __repr__(self) -> str:
        return f"Tokens({', '.join(self._said())})"

    @property
    def of_prompt(self) -> bool:
        """Whether it can only be met in the prompt."""
        back = self.positions is not None and all(position < 0 for position in self._listed("positions"))
        ends = self.window is not None and self.window[1] is not None and self.window[1] <= 0
        return self.phase == "prompt" or back or ends

    @property
    def of_generation(self) -> bool:
        """Whether it can only be met after the prompt."""
        return self.phase == "generation"

    def _listed(self, name: str) -> list[int]:
        """A setting that is one whole number or several; one number, said nothing, counts as met."""
        value = getattr(self, name)
        try:
            if value is None:
                return [0]
            if isinstance(value, Tensor):
                value = value.tolist()
            several: Any = value if isinstance(value, Collection) and not isinstance(value, str) else [value]
            return [operator.index(each) for each in several]
        except TypeError:
            raise ProbeError(f"{name}={brief(value)}: give a whole number, or several") from None

    def _said(self) -> list[str]:
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        return [f"{name}={brief(value)}" for name, value in said.items() if value is not None]


@dataclass(frozen=True, eq=False)
class Selection:
    """What any of some clauses selects, but for what any of others takes away; made by ``|`` and ``-``."""

    clauses: tuple[Tokens, ...]
    excluded: tuple[Tokens, ...] = ()

    @classmethod
    def of(cls, tokens: "Tokens | Selection") -> "Selection":
        """One clause, or several already put together."""
        return tokens if isinstance(tokens, Selection) else cls((tokens,))

    def __or__(self, other: "Tokens | Selection") -> "Selection":
        other = Selection.of(other)
        return Selection(self.clauses + other.clauses, self.excluded + other.excluded)

    def __sub__(self, other: "Tokens | Selection") -> "Selection":
        other = Selection.of(other)
        if other.excluded:
            raise ProbeError("a selection that takes something away cannot itself be taken away; list its clauses")
        return Selection(self.clauses, self.excluded + other.clauses)

    def __repr__(self) -> str:
        taken = "".join(f" - {clause}" for clause in self.excluded)
        return " | ".join(map(str, self.clauses)) + taken


class Selector:
    """A selection at work: gives the mask of each pass, and remembers which clauses have met a token.

    Args:
        tokens: what is selected.
    """

    def __init__(self, tokens: Tokens | Selection) -> None:
        if not isinstance(tokens, Tokens | Selection):
            raise ProbeError(f"tokens is a {type(tokens).__name__}; say which tokens with Tokens(...)")
        self.selection = Selection.of(tokens)
        self._clauses = [_Clause(clause) for clause in self.selection.clauses]
        self._excluded = [_Clause(clause) for clause in self.selection.excluded]
        self._mask: tuple[Pass, Tensor] | None = None
        self._found: tuple[Pass, Found] | None = None
        self._any: Tensor | None = None

    @property
    def by_span(self) -> bool:
        """Whether it is one clause that names spans."""
        return len(self._clauses) == 1 and self._clauses[0].clause.spans is not None

    def possible(self, now: Pass) -> bool:
        """Whether this pass can hold a selected token, as far as that is known without looking at any."""
        return any(_possible(each.clause, now) for each in self._clauses)

    def mask(self, now: Pass) -> Bool[Tensor, "batch width"]:
        """Which tokens of this pass are selected."""
        if self._mask is None or self._mask[0] is not now:
            mask = torch.zeros_like(now.real)
            for clause in self._clauses:
                mask = mask | clause.met(now)
            for clause in self._excluded:
                mask = mask & ~clause.met(now)
            self._mask = now, mask
            self._any = mask.any() if self._any is None else self._any | mask.any()
        return self._mask[1]

    def found(self, now: Pass) -> "Found":
        """The selected tokens of this pass, one by one."""
        if self._found is None or self._found[0] is not now:
            row, column = self.mask(now).nonzero(as_tuple=True)
            origin = now.rows[row]
            group = self._clauses[0].span_number(now)[row, column] if self.by_span else origin
            self._found = now, Found(row, column, torch.stack([origin, now.position[row, column], group, column], -1))
        return self._found[1]

    def forget(self) -> None:
        """Let go of the last pass."""
        self._mask = self._found = None

    def check(self) -> None:
        """Refuse a selection that has not met a token.

        Raises:
            ProbeError: naming the clause.
        """
        for clause in self._clauses:
            if clause.seen is None or not clause.seen:
                raise ProbeError(f"{clause.clause} selected no token of any forward pass in the block")
        if not self._any:
            raise ProbeError(f"nothing is left of {self.selection}: all that it selects it also takes away")


@dataclass(frozen=True)
class Found:
    """Selected tokens, row by row.

    Attributes:
        row: of the tensors of the pass.
        column: likewise.
        where: row of the batch as it began, position, group (the row, or the number of the span), column of the pass.
    """

    row: Int[Tensor, " token"]
    column: Int[Tensor, " token"]
    where: Int[Tensor, "token 4"]


def _possible(clause: Tokens, now: Pass) -> bool:
    if now.prompt_width is None:
        return True
    if clause.of_generation and now.past + now.width <= now.prompt_width:
        return False
    return not (clause.of_prompt and now.past >= now.prompt_width)


class _Clause:
    """One clause with its numbers as tensors, on whichever device they are asked for."""

    def __init__(self, clause: Tokens) -> None:
        self.clause = clause
        self.seen: Tensor | None = None
        self._tensors: dict[tuple[str, torch.device], Tensor] = {}

    def met(self, now: Pass) -> Bool[Tensor, "batch width"]:
        """Which tokens of this pass meet the clause."""
        clause, mask, device = self.clause, now.real, now.real.device
        if not _possible(clause, now):
            return torch.zeros_like(mask)
        if clause.phase is not None:
            mask = mask & (now.after_prompt if clause.phase == "generation" else ~now.after_prompt)
        if clause.positions is not None:
            met = torch.isin(now.position, self._tensor("forward", device))
            if len(back := self._tensor("back", device)):
                met = met | torch.isin(now.step, back)
            mask = mask & met
        if clause.window is not None:
            start, stop = clause.window
            if start is not None:
                mask = mask & ((now.position if start >= 0 else now.step) >= start)
            if stop is not None:
                mask = mask & ((now.position if stop >= 0 else now.step) < stop)
        if clause.steps is not None:
            mask = mask & self._steps(now)
        if clause.ids is not None:
            if now.ids is None:
                raise ProbeError(f"{clause} needs token ids, but the model was given embeddings")
            mask = mask & torch.isin(now.ids, self._tensor("ids", device))
        if clause.spans is not None:
            mask = mask & (self.span_number(now) >= 0)
        if clause.gate is not None:
            mask = mask & self._gate(clause.gate, now)
        met = mask.any()
        self.seen = met if self.seen is None else self.seen | met
        return mask

    def span_number(self, now: Pass) -> Int[Tensor, "batch width"]:
        """Which span of its row each token lies in, counted over all rows; −1 in none."""
        self._check_rows(len(self.clause.spans or ()), now, "spans")
        bounds = self._tensor("spans", now.real.device)
        numbered, start, stop = (bounds[now.rows, :, i, None] for i in range(3))
        inside = (start <= now.position[:, None]) & (now.position[:, None] < stop)
        return torch.where(inside, numbered, -1).amax(1)

    def _steps(self, now: Pass) -> Tensor:
        steps = self.clause.steps
        if isinstance(steps, Tensor) and steps.ndim:
            return self._look_up("steps", steps, now, now.step)
        return torch.isin(now.step, self._tensor("steps", now.real.device))

    def _gate(self, gate: Tensor | Gate, now: Pass) -> Tensor:
        if isinstance(gate, Tensor):
            return self._look_up("gate", gate, now, now.position)
        mask = gate(now)
        if mask.dtype != torch.bool or mask.shape != now.real.shape:
            raise ProbeError(
                f"the gate gave {str(mask.dtype).removeprefix('torch.')} of shape {list(mask.shape)}; "
                f"it must give booleans of shape {list(now.real.shape)}"
            )
        return mask

    def _look_up(self, name: str, table: Tensor, now: Pass, column: Tensor) -> Tensor:
        """``table[row, column]``, False beyond its ends."""
        if table.dtype != torch.bool or table.ndim != 2:
            raise ProbeError(f"{name} must be booleans of shape [row, ...]; got {table.dtype}, {list(table.shape)}")
        self._check_rows(len(table), now, name)
        rows = self._tensor(name, now.real.device)[now.rows]
        inside = (column >= 0) & (column < table.shape[1])
        return rows.gather(1, column.clamp(0, table.shape[1] - 1)) & inside

    def _check_rows(self, rows: int, now: Pass, name: str) -> None:
        if rows != now.begun:
            raise ProbeError(f"{name} of {rows} rows for a batch of {now.begun}; give one entry a row of the batch")

    def _tensor(self, name: str, device: torch.device) -> Tensor:
        key = (name, device)
        if key not in self._tensors:
            self._tensors[key] = self._numbers[name]().to(device)
        return self._tensors[key]

    @cached_property
    def _numbers(self) -> dict[str, Callable[[], Tensor]]:
        clause = self.clause
        return {
            "forward": lambda: torch.tensor([p for p in clause._listed("positions") if p >= 0], dtype=torch.long),
            "back": lambda: torch.tensor([p for p in clause._listed("positions") if p < 0], dtype=torch.long),
            "ids": lambda: torch.tensor(clause._listed("ids"), dtype=torch.long),
            "steps": lambda: torch.as_tensor(clause.steps if _is_table(clause.steps) else clause._listed("steps")),
            "gate": lambda: clause.gate if isinstance(clause.gate, Tensor) else torch.empty(0),
            "spans": lambda: _bounds(clause.spans or ()),
        }


def _is_table(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _check_window(window: object) -> None:
    if not isinstance(window, tuple | list) or len(window) != 2:
        raise ProbeError(f"window={brief(window)}: give where it starts and where it stops, None for an open end")
    start, stop = window
    if start is not None and stop is not None and (start < 0) == (stop < 0) and start >= stop:
        raise ProbeError(f"the window {window} is empty; it runs up to but not including its end")


def _check_spans(row: object) -> None:
    if not isinstance(row, Sequence) or not all(isinstance(span, Sequence) and len(span) == 2 for span in row):
        raise ProbeError(f"spans of a row are {brief(row)}; give a list of (start, stop) for each row of the batch")
    for start, stop in row:
        if not 0 <= start < stop:
            raise ProbeError(f"the span ({start}, {stop}) is empty or begins before the text")
    if any(one[1] > other[0] for one, other in pairwise(sorted(row))):
        raise ProbeError(f"the spans {brief(sorted(row))} overlap; a token lies in one span at most")


def _bounds(spans: Sequence[Sequence[tuple[int, int]]]) -> Int[Tensor, "row span 3"]:
    """Number, start and stop of every span; rows with fewer are filled up with empty ones."""
    longest = max((len(row) for row in spans), default=0)
    numbered, number = [], 0
    for row in spans:
        filled = [(number + i, start, stop) for i, (start, stop) in enumerate(row)]
        numbered.append(filled + [(-1, 0, 0)] * (max(longest, 1) - len(row)))
        number += len(row)
    return torch.tensor(numbered, dtype=torch.long).reshape(len(spans), max(longest, 1), 3)


def brief(value: object) -> str:
    """A value as an error message or a repr shows it."""
    if isinstance(value, Tensor):
        return f"<{str(value.dtype).removeprefix('torch.')} {list(value.shape)}>"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

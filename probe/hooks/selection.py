"""Which tokens are read or written: `Tokens` clauses, combined into a `Selection`.

All conditions of one `Tokens` clause must hold. ``|`` joins clauses, and ``-`` excludes tokens; what is excluded stays
excluded::

    Tokens(phase="generation") | Tokens(positions=-1)  # all generated tokens, and the last token of the prompt
    Tokens(window=(0, 64)) - Tokens(ids=[tokenizer.eos_token_id])

Positions count the tokens of a row from 0. Padding has no position and is never selected. Negative positions count back
from the end of the prompt: −1 is the prompt's last token, whose state predicts the first generated token. A generated
token is selected when the model reads it, one pass after it was chosen.
"""

import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import InitVar, dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, SupportsIndex, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from probe.errors import ProbeError
from probe.hooks.passes import Pass

Phase = Literal["prompt", "generation"]
Numbers = SupportsIndex | Collection[SupportsIndex] | Tensor
"""One whole number, or several."""
Mask = Callable[[Pass], Tensor]
"""A function from the current pass to booleans ``[batch, width]``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Tokens:
    """A clause: selects the tokens for which all given conditions hold.

    Raises:
        ProbeError: if no condition is given, or one that no token can meet.

    >>> Tokens(phase="generation", ids=[13])
    Tokens(phase='generation', ids=[13])
    """

    phase: Phase | None = None
    """``prompt``, or ``generation`` for the tokens after the prompt."""

    positions: Numbers | None = None
    """One position or several; negative positions count back from the end of the prompt."""

    window: tuple[int | None, int | None] | list[int | None] | None = None
    """Positions from ``start`` up to but not including ``stop``, numbered like ``positions``; None for an open end."""

    steps: Numbers | None = None
    """Generated tokens by number, counted from 0: one, several, or a boolean tensor ``[row, step]``."""

    ids: Numbers | None = None
    """One token id or several."""

    spans: Sequence[Sequence[Sequence[int]]] | None = None
    """For each row of the batch a list of half-open ``(start, stop)`` spans of positions, such as sentences."""

    mask: Tensor | Mask | None = None
    """A boolean tensor ``[row, position]`` (False beyond its end), or a function from the current `Pass` to booleans
    ``[batch, width]``."""

    gate: InitVar[Tensor | Mask | None] = None
    """The former name of ``mask``."""

    def __post_init__(self, gate: Tensor | Mask | None) -> None:
        if gate is not None:
            object.__setattr__(self, "mask", gate)
        if not self._conditions():
            raise ProbeError("an empty Tokens() selects nothing in particular; leave tokens out to select all")
        if self.phase not in (None, *get_args(Phase)):
            raise ProbeError(f"unknown phase '{self.phase}'; use prompt or generation")
        for name in ("positions", "ids", "steps"):
            value = getattr(self, name)
            if value is not None and not (name == "steps" and _is_table(value)) and not _whole_numbers(name, value):
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
        return f"Tokens({', '.join(self._conditions())})"

    @property
    def of_prompt(self) -> bool:
        """Whether only tokens of the prompt can be selected."""
        back = self.positions is not None and all(each < 0 for each in _whole_numbers("positions", self.positions))
        ends = self.window is not None and self.window[1] is not None and self.window[1] <= 0
        return self.phase == "prompt" or back or ends

    @property
    def of_generation(self) -> bool:
        """Whether only generated tokens can be selected."""
        return self.phase == "generation"

    def _conditions(self) -> list[str]:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return [f"{name}={brief(value)}" for name, value in given.items() if value is not None]


@dataclass(frozen=True, eq=False)
class Selection:
    """Several clauses combined by ``|`` and ``-``.

    Attributes:
        clauses: a token is selected if it meets any of these,
        excluded: unless it meets any of these.
    """

    clauses: tuple[Tokens, ...]
    excluded: tuple[Tokens, ...] = ()

    @classmethod
    def of(cls, tokens: "Tokens | Selection") -> "Selection":
        """Make a selection of a clause; a selection is returned as it is."""
        return tokens if isinstance(tokens, Selection) else cls((tokens,))

    def __or__(self, other: "Tokens | Selection") -> "Selection":
        other = Selection.of(other)
        return Selection(self.clauses + other.clauses, self.excluded + other.excluded)

    def __sub__(self, other: "Tokens | Selection") -> "Selection":
        other = Selection.of(other)
        if other.excluded:
            raise ProbeError("a selection with exclusions cannot itself be excluded; exclude its clauses one by one")
        return Selection(self.clauses, self.excluded + other.clauses)

    def __repr__(self) -> str:
        return " | ".join(map(str, self.clauses)) + "".join(f" - {clause}" for clause in self.excluded)


class Selector:
    """Applies a selection to each forward pass, and remembers which clauses have selected a token."""

    def __init__(self, tokens: Tokens | Selection) -> None:
        if not isinstance(tokens, Tokens | Selection):
            raise ProbeError(f"tokens is a {type(tokens).__name__}; say which tokens with Tokens(...)")
        self.selection = Selection.of(tokens)
        self._clauses = [_Clause(clause) for clause in self.selection.clauses]
        self._excluded = [_Clause(clause) for clause in self.selection.excluded]
        self._mask: tuple[Pass, Tensor] | None = None
        self._selected: tuple[Pass, Selected] | None = None
        self._any: Tensor | None = None

    @property
    def by_span(self) -> bool:
        """Whether the selection is a single clause with spans."""
        return len(self._clauses) == 1 and self._clauses[0].clause.spans is not None

    def possible(self, now: Pass) -> bool:
        """Whether this pass may contain a selected token, judged without reading any tensor."""
        return any(_possible(each.clause, now) for each in self._clauses)

    def mask(self, now: Pass) -> Bool[Tensor, "batch width"]:
        """The selected tokens of this pass."""
        if self._mask is None or self._mask[0] is not now:
            mask = torch.zeros_like(now.real)
            for clause in self._clauses:
                mask = mask | clause.met(now)
            for clause in self._excluded:
                mask = mask & ~clause.met(now)
            self._mask = now, mask
            self._any = mask.any() if self._any is None else self._any | mask.any()
        return self._mask[1]

    def selected(self, now: Pass) -> "Selected":
        """The selected tokens of this pass, listed row by row."""
        if self._selected is None or self._selected[0] is not now:
            row, column = self.mask(now).nonzero(as_tuple=True)
            origin = now.rows[row]
            group = self._clauses[0].span_number(now)[row, column] if self.by_span else origin
            where = torch.stack([origin, now.position[row, column], group, column], -1)
            self._selected = now, Selected(row, column, where)
        return self._selected[1]

    def forget(self) -> None:
        """Release the tensors of the last pass."""
        self._mask = self._selected = None

    def check(self) -> None:
        """Check that every clause has selected a token.

        Raises:
            ProbeError: naming a clause that has not.
        """
        for clause in self._clauses:
            if clause.seen is None or not clause.seen:
                raise ProbeError(f"{clause.clause} selected no token of any forward pass in the block")
        if not self._any:
            raise ProbeError(f"{self.selection} excludes every token that it selects")


@dataclass(frozen=True)
class Selected:
    """The selected tokens of a pass, row by row.

    Attributes:
        row: the row of each token in the tensors of the pass.
        column: its column there.
        where: for each token its row in the batch as it began, its position, its group (the row, or the number of its
            span), and its column in the pass.
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
    """A clause with its numbers as tensors, cached for each device."""

    def __init__(self, clause: Tokens) -> None:
        self.clause = clause
        self.seen: Tensor | None = None
        self._tensors: dict[tuple[str, torch.device], Tensor] = {}

    def met(self, now: Pass) -> Bool[Tensor, "batch width"]:
        """The tokens of this pass that meet the clause."""
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
                raise ProbeError(f"{clause} needs token ids; call the model with input_ids, not with embeddings")
            mask = mask & torch.isin(now.ids, self._tensor("ids", device))
        if clause.spans is not None:
            mask = mask & (self.span_number(now) >= 0)
        if clause.mask is not None:
            mask = mask & self._masked(clause.mask, now)
        met = mask.any()
        self.seen = met if self.seen is None else self.seen | met
        return mask

    def span_number(self, now: Pass) -> Int[Tensor, "batch width"]:
        """The number of the span that each token lies in, counted over all rows; −1 outside spans."""
        self._check_rows(len(self.clause.spans or ()), now, "spans")
        bounds = self._tensor("spans", now.real.device)
        numbered, start, stop = (bounds[now.rows, :, i, None] for i in range(3))
        inside = (start <= now.position[:, None]) & (now.position[:, None] < stop)
        return torch.where(inside, numbered, -1).amax(1)

    def _steps(self, now: Pass) -> Tensor:
        steps = self.clause.steps
        if isinstance(steps, Tensor) and _is_table(steps):
            return self._look_up("steps", steps, now, now.step)
        return torch.isin(now.step, self._tensor("steps", now.real.device))

    def _masked(self, mask: Tensor | Mask, now: Pass) -> Tensor:
        if isinstance(mask, Tensor):
            return self._look_up("mask", mask, now, now.position)
        met = mask(now)
        if met.dtype != torch.bool or met.shape != now.real.shape:
            raise ProbeError(
                f"the mask function gave {str(met.dtype).removeprefix('torch.')} of shape {list(met.shape)}; "
                f"it must give booleans of shape {list(now.real.shape)}"
            )
        return met

    def _look_up(self, name: str, table: Tensor, now: Pass, column: Tensor) -> Tensor:
        """Read ``table[row, column]``, False beyond its end."""
        if table.dtype != torch.bool or table.ndim != 2:
            raise ProbeError(f"{name} must be booleans of shape [row, ...]; got {table.dtype}, {list(table.shape)}")
        self._check_rows(len(table), now, name)
        rows = self._tensor(name, now.real.device)[now.rows]
        inside = (column >= 0) & (column < table.shape[1])
        return rows.gather(1, column.clamp(0, table.shape[1] - 1)) & inside

    def _check_rows(self, rows: int, now: Pass, name: str) -> None:
        if rows != now.begun:
            raise ProbeError(f"{name} of {rows} rows for a batch of {now.begun}; give one entry for each row")

    def _tensor(self, name: str, device: torch.device) -> Tensor:
        key = (name, device)
        if key not in self._tensors:
            self._tensors[key] = self._numbers[name]().to(device)
        return self._tensors[key]

    @cached_property
    def _numbers(self) -> dict[str, Callable[[], Tensor]]:
        clause = self.clause

        def listed(name: str) -> list[int]:
            return _whole_numbers(name, getattr(clause, name))

        return {
            "forward": lambda: torch.tensor([p for p in listed("positions") if p >= 0], dtype=torch.long),
            "back": lambda: torch.tensor([p for p in listed("positions") if p < 0], dtype=torch.long),
            "ids": lambda: torch.tensor(listed("ids"), dtype=torch.long),
            "steps": lambda: torch.as_tensor(clause.steps if _is_table(clause.steps) else listed("steps")),
            "mask": lambda: clause.mask if isinstance(clause.mask, Tensor) else torch.empty(0),
            "spans": lambda: _bounds(clause.spans or ()),
        }


def _whole_numbers(name: str, value: Numbers) -> list[int]:
    several: Any = value.reshape(-1).tolist() if isinstance(value, Tensor) else value
    try:
        return [operator.index(each) for each in (several if isinstance(several, Collection) else [several])]
    except TypeError:
        raise ProbeError(f"{name}={brief(value)}: give a whole number, or several") from None


def _is_table(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _check_window(window: object) -> None:
    if not isinstance(window, tuple | list) or len(window) != 2:
        raise ProbeError(f"window={brief(window)}: give (start, stop), with None for an open end")
    start, stop = window
    if start is not None and stop is not None and (start < 0) == (stop < 0) and start >= stop:
        raise ProbeError(f"the window {window} is empty; it goes up to but not including its stop")


def _check_spans(row: object) -> None:
    if not isinstance(row, Sequence) or not all(isinstance(span, Sequence) and len(span) == 2 for span in row):
        raise ProbeError(f"the spans of a row are {brief(row)}; give a list of (start, stop) for each row of the batch")
    for start, stop in row:
        if not 0 <= start < stop:
            raise ProbeError(f"the span ({start}, {stop}) is empty or begins before the text; give 0 <= start < stop")
    if any(one[1] > other[0] for one, other in pairwise(sorted(row))):
        raise ProbeError(f"the spans {brief(sorted(row))} overlap; a token may lie in only one span")


def _bounds(spans: Sequence[Sequence[Sequence[int]]]) -> Int[Tensor, "row span 3"]:
    """Number, start and stop of every span; rows with fewer spans are padded with empty ones."""
    longest = max((len(row) for row in spans), default=0)
    numbered, number = [], 0
    for row in spans:
        filled = [(number + i, start, stop) for i, (start, stop) in enumerate(row)]
        numbered.append(filled + [(-1, 0, 0)] * (max(longest, 1) - len(row)))
        number += len(row)
    return torch.tensor(numbered, dtype=torch.long).reshape(len(spans), max(longest, 1), 3)


def brief(value: object) -> str:
    """Shorten a value for an error message or a repr."""
    if isinstance(value, Tensor):
        return f"<{str(value.dtype).removeprefix('torch.')} {list(value.shape)}>"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

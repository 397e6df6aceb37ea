"""The decoding loop: many prompts through a few slots, read by one model or several, with finished rows replaced.

What is emitted is decided by the caller's ``choose``; this loop only runs the models.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.hooks.checks import not_finite
from probe.hooks.decoding.room import fitting_rows, row_bytes
from probe.hooks.decoding.runner import Runner, Step, check_prompts
from probe.hooks.passes import followed
from probe.models import Model, halving

_ADMIT_SHARE = 8
"""New rows are taken in once one slot in this many is free, so that their prompts run together."""


@dataclass(frozen=True)
class Lane:
    """A model that reads what is emitted, with its own prompt for each item.

    Attributes:
        model: the model.
        prompts: token ids of the prompt of each item.
        read, steer, remember: as in :class:`~probe.hooks.Runner`.
    """

    model: Model
    prompts: Sequence[Sequence[int]]
    read: Sequence[int] = ()
    steer: int | None = None
    remember: bool = False

    def begin(self, items: Sequence[int], max_new_tokens: int) -> Runner:
        """Make a batch of these items.

        Args:
            items: indices into ``prompts``.
            max_new_tokens: the maximum number of tokens that may be emitted for an item.
        """
        prompts = [self.prompts[item] for item in items]
        return Runner(self.model, prompts, max_new_tokens, read=self.read, steer=self.steer, remember=self.remember)

    def row_bytes(self, max_new_tokens: int) -> int:
        """The bytes that each row takes, at most."""
        longest = max(map(len, self.prompts), default=0)
        return row_bytes(self.model, longest + max_new_tokens, steer=self.steer, remember=self.remember)


class Pending:
    """The columns chosen in the step before, while they are still on the device.

    Args:
        columns: one row for each row of that step.
    """

    def __init__(self, columns: Int[Tensor, "before columns"]) -> None:
        self._columns = columns
        self._rows: list[list[int]] | None = None

    def fetch(self, values: Int[Tensor, " rows"] | Bool[Tensor, " rows"]) -> list[int]:
        """Copy values to the host, together with the columns."""
        if self._rows is not None:
            return values.tolist()
        before = torch.nn.functional.pad(self._columns, (0, 0, 0, len(values) - len(self._columns)))
        together = torch.cat([values[:, None].long(), before], 1).tolist()
        self._rows = [row[1:] for row in together]
        return [row[0] for row in together]

    def rows(self) -> list[list[int]]:
        """The columns on the host, one list for each row."""
        return self._columns.tolist() if self._rows is None else self._rows


@dataclass(frozen=True)
class Now:
    """One decoding step of the rows in the batch.

    Attributes:
        steps: the output of each lane's model.
        runners: the batch of each lane.
        items: the item of each row.
        numbers: the same on the host.
        counts: the number of tokens that each row has emitted.
        last: the token that each row emitted last; −1 before its first.
        pending: the columns of the step before that have not been copied to the host.
    """

    steps: Sequence[Step]
    runners: Sequence[Runner]
    items: Int[Tensor, " rows"]
    numbers: Sequence[int]
    counts: Int[Tensor, " rows"]
    last: Int[Tensor, " rows"]
    pending: Pending

    def fetch(self, values: Int[Tensor, " rows"] | Bool[Tensor, " rows"]) -> list[int]:
        """Copy one whole number (or boolean) for each row to the host.

        The columns of the step before are copied with it, so that a decoding step waits for the device only once.
        """
        return self.pending.fetch(values)


Column = Int[Tensor, " rows"] | Bool[Tensor, " rows"] | Float[Tensor, " rows"]
Choose = Callable[[Now], Sequence[Column]]
"""Chooses what each row emits: a column of token ids, then any columns to be recorded beside them. A token of −1 says
that the logits it was to be chosen from are not finite; see :func:`~probe.hooks.likeliest`."""


@dataclass
class _Row:
    """An item in the batch, and its columns for each token so far."""

    item: int
    columns: list[list[int]] = field(default_factory=list)


def stream(
    lanes: Sequence[Lane],
    choose: Choose,
    *,
    ends: Set[int],
    max_new_tokens: int,
    slots: int,
    late: bool | None = None,
    until: Callable[[int, Sequence[int]], bool] | None = None,
    called: Callable[[int], str] = "prompt {}".format,
) -> Iterator[tuple[int, list[list], bool]]:
    """Decode every item, at most ``slots`` at a time, and fewer where memory says so.

    If memory runs out, the items in work begin again, half as many at a time.

    Args:
        lanes: the models, each with a prompt for every item. Tokens are chosen on the device of the first. Equal
            prompts that follow each other are run once.
        choose: chooses the next token of each row. What it keeps of an item must begin anew where ``last`` is −1.
        ends: token ids that end a row.
        max_new_tokens: the maximum number of tokens that are emitted for an item.
        slots: how many items are decoded at once, at most.
        late: notice one step late that a row has ended, so that each step waits for the device only once; the extra
            step leaves no trace. None: late on accelerators, where waiting is expensive, unless an open capture or edit
            depends on tokens.
        until: called with an item and the tokens it has emitted, after each token; True ends the row there.
        called: what messages call an item.

    Yields:
        Each item as soon as it is done: its index; one list for each column, with a value for each emitted token (the
        end token is left out); and whether the limit on tokens stopped it.

    Raises:
        ProbeError: if a model cannot continue one of its prompts, before any is run; where the logits of a model are
            not finite; and if memory still runs out after the batch was halved twice.
    """
    for lane in lanes:
        check_prompts(lane.model, lane.prompts, max_new_tokens)
    device = lanes[0].model.device
    if late is None:
        late = device.type != "cpu" and not any(followed(lane.model.hf) for lane in lanes)
    batch = _Batch(lanes, choose, ends, max_new_tokens, late, until, called)
    slots = fitting_rows([(lane.model, lane.row_bytes(max_new_tokens)) for lane in lanes], slots)
    while batch.queue or batch.rows:
        halving(batch.advance, batch.slots or slots, device=device, what="decoding")
        yield from batch.take()


class _Batch:
    """The items in work and in the queue. The arguments are those of :func:`stream`."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        choose: Choose,
        ends: Set[int],
        max_new_tokens: int,
        late: bool,
        until: Callable[[int, Sequence[int]], bool] | None,
        called: Callable[[int], str],
    ) -> None:
        self.lanes, self.choose, self.ends, self.max_new_tokens = lanes, choose, ends, max_new_tokens
        self.late, self.until, self.called = late, until, called
        self.device = lanes[0].model.device
        self.queue = deque(range(len(lanes[0].prompts)))
        self.slots: int | None = None
        self.done: list[tuple[int, list[list], bool]] = []
        self.pending = Pending(torch.zeros(0, 1, dtype=torch.long))
        self._drop()

    def _drop(self) -> None:
        self.rows: list[_Row] = []
        self.runners: list[Runner] = []
        self.steps: list[Step] = []
        self.before = torch.zeros(0, 1, dtype=torch.long, device=self.device)
        """The columns chosen in the step before."""

    def take(self) -> list[tuple[int, list[list], bool]]:
        """What is done, each item once."""
        done, self.done = self.done, []
        return done

    @torch.no_grad()
    def advance(self, slots: int) -> None:
        """Make one step; with fewer slots than before, the items in work begin again."""
        if self.slots is not None and slots < self.slots:
            self.queue.extendleft(reversed([row.item for row in self.rows]))
            self._drop()
        self.slots = slots
        self._admit(slots)
        columns, kinds = self._chosen()
        going = self._sort(columns, kinds)
        if len(going) < len(self.rows):
            # Rows that are done leave before anything can fail, so that they are never begun again.
            self.rows = [self.rows[at] for at in going]
            kept = _on(going, self.device)
            for lane, runner in zip(self.lanes, self.runners, strict=True):
                runner.keep(kept.to(lane.model.device), hold=bool(self.queue))
            columns = columns[kept]
        self.before = columns
        if self.rows:
            tokens = columns[:, 0].clamp(min=0)  # noticed a step later, if late
            self.steps = [
                runner.step(tokens.to(lane.model.device)) for lane, runner in zip(self.lanes, self.runners, strict=True)
            ]

    def _admit(self, slots: int) -> None:
        """Take in new items where enough slots are free."""
        free, begins = slots - len(self.rows), not self.rows
        if not self.queue or not (
            begins or (free * _ADMIT_SHARE >= slots and all(runner.may_admit for runner in self.runners))
        ):
            return
        new = [self.queue.popleft() for _ in range(min(free, len(self.queue)))]
        self.rows += [_Row(item) for item in new]
        if begins:
            self.runners = [lane.begin(new, self.max_new_tokens) for lane in self.lanes]
            self.steps, self.before = [runner.prefill() for runner in self.runners], self.before[:0]
            return
        more = [
            runner.admit([lane.prompts[item] for item in new])
            for lane, runner in zip(self.lanes, self.runners, strict=True)
        ]
        self.steps = [step + taken for step, taken in zip(self.steps, more, strict=True)]

    def _chosen(self) -> tuple[Int[Tensor, "rows columns"], list[torch.dtype]]:
        """What each row emits, and the number formats of the columns; the last column finds bad logits."""
        emitted = len(self.before)  # the rows after these were admitted in this step
        self.pending = Pending(self.before if self.late else self.before[:0])
        counts = [len(row.columns) + (self.late and at < emitted) for at, row in enumerate(self.rows)]
        items = [row.item for row in self.rows]
        now = Now(
            self.steps,
            self.runners,
            items=_on(items, self.device),
            numbers=items,
            counts=_on(counts, self.device),
            last=torch.nn.functional.pad(self.before[:, 0], (0, len(self.rows) - emitted), value=-1),
            pending=self.pending,
        )
        chosen = self.choose(now)
        # The last column is read together with the others, so that looking for bad logits costs no waiting.
        columns = torch.stack([*map(_as_integers, chosen), _at_fault(self.steps, chosen[0])], 1)
        return columns, [column.dtype for column in chosen]

    def _sort(self, columns: Int[Tensor, "rows columns"], kinds: Sequence[torch.dtype]) -> list[int]:
        """Set aside the rows that are done, and return the others."""
        known, emitted = (self.pending.rows(), len(self.before)) if self.late else (columns.tolist(), len(self.rows))
        going = []
        for at, row in enumerate(self.rows):
            if at < emitted:
                self._check(row, known[at])
                if known[at][0] in self.ends:
                    self.done.append((row.item, _by_column(row.columns, kinds), False))
                    continue
                row.columns.append(known[at])
                if self.until is not None and self.until(row.item, [column[0] for column in row.columns]):
                    self.done.append((row.item, _by_column(row.columns, kinds), False))
                    continue
            if len(row.columns) + self.late == self.max_new_tokens:
                final = [columns[at].tolist()] if self.late else []
                for last in final:
                    self._check(row, last)
                ended = self.late and final[0][0] in self.ends
                self.done.append((row.item, _by_column(row.columns + ([] if ended else final), kinds), not ended))
                continue
            going.append(at)
        return going

    def _check(self, row: _Row, chosen: Sequence[int]) -> None:
        if chosen[-1]:
            model = self.lanes[chosen[-1] - 1].model
            raise not_finite(f"a logit at new token {len(row.columns)} of {self.called(row.item)}", model)


def _at_fault(steps: Sequence[Step], tokens: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """For each row 0, or 1 plus the number of the lane whose logits are not finite.

    Logits are seldom bad alone (one bad number in the residual stream spoils all of a row), so the chosen one tells.
    """
    found = (tokens < 0).long()  # chosen from the first lane's logits, shifted
    for number, step in reversed(list(enumerate(steps))):
        at = tokens.clamp(0, step.logits.shape[-1] - 1).to(step.logits.device)
        logit = step.logits.gather(-1, at[:, None])[:, 0].to(tokens.device)
        found = torch.where(logit.isnan() | logit.isposinf(), number + 1, found)
    return found


def _as_integers(column: Tensor) -> Int[Tensor, " rows"]:
    """A column as int64; floating-point numbers are kept exactly, as the bits of their float32."""
    return (column.float().view(torch.int32) if column.is_floating_point() else column).long()


def _by_column(rows: list[list[int]], kinds: Sequence[torch.dtype]) -> list[list]:
    """Undo :func:`_as_integers`: one list for each column that was chosen."""
    whole = torch.tensor([row[: len(kinds)] for row in rows], dtype=torch.long).reshape(len(rows), len(kinds)).T
    return [
        (column.int().view(torch.float32) if kind.is_floating_point else column.to(kind)).tolist()
        for column, kind in zip(whole, kinds, strict=True)
    ]


def _on(values: Sequence[int], device: torch.device) -> Int[Tensor, " values"]:
    """Whole numbers on a device, copied without waiting for it."""
    made = torch.tensor(values, dtype=torch.long)
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)

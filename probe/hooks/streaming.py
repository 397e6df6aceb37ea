"""Decoding many prompts through a few places: one model or several on the same emitted tokens, rows that end replaced.

What is emitted is decided elsewhere (``choose``); this is the one loop that runs the models.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.hooks.passes import followed
from probe.hooks.runner import Runner, Step
from probe.models import Model

#: Places that have to be free before new rows are taken in: their prompts are run together.
_AN_EIGHTH = 8


@dataclass(frozen=True)
class Lane:
    """A model that reads what is emitted.

    Attributes:
        model: the model.
        prompts: token ids before the emitted ones, one list an item.
        read, steer, remember: as in :class:`~probe.hooks.Runner`.
    """

    model: Model
    prompts: Sequence[Sequence[int]]
    read: Sequence[int] = ()
    steer: int | None = None
    remember: bool = False

    def begin(self, items: Sequence[int], max_new_tokens: int) -> Runner:
        """Start with these items."""
        prompts = [self.prompts[item] for item in items]
        return Runner(self.model, prompts, max_new_tokens, read=self.read, steer=self.steer, remember=self.remember)


@dataclass
class _Row:
    """An item under way, and what is on record of each of its tokens."""

    item: int
    columns: list[list[float]] = field(default_factory=list)


@dataclass
class Now:
    """One decoding step of the rows under way.

    Attributes:
        steps: what each lane's model gives.
        runners: each lane's batch.
        items: which item each row is.
        counts: how many tokens each row has emitted.
        last: the token that each row emitted last; −1 at its first.
    """

    steps: Sequence[Step]
    runners: Sequence[Runner]
    items: Int[Tensor, " rows"]
    counts: Int[Tensor, " rows"]
    last: Int[Tensor, " rows"]
    _unread: Float[Tensor, "before columns"] | None = None
    _read: list[list[float]] = field(default_factory=list)

    def fetch(self, values: Tensor) -> list[float]:
        """A device's numbers, one a row, on the host.

        What the step before has left on the device comes with them, so that a decoding step waits for the device once.
        """
        if self._unread is None:
            return values.tolist()
        before = torch.nn.functional.pad(self._unread, (0, 0, 0, len(values) - len(self._unread)))
        there = torch.cat([values[:, None].float(), before], 1).tolist()
        self._read, self._unread = [row[1:] for row in there], None
        return [row[0] for row in there]


#: What is emitted now: a column of tokens and, beside it, whatever is to be kept on record.
Choose = Callable[[Now], Float[Tensor, "rows columns"]]


@torch.no_grad()
def stream(
    lanes: Sequence[Lane],
    choose: Choose,
    *,
    ends: Set[int],
    max_new_tokens: int,
    slots: int,
    late: bool | None = None,
) -> Iterator[tuple[int, list[list[float]], bool]]:
    """Decode every item, at most ``slots`` at a time.

    Args:
        lanes: the models, with a prompt for each item; on the first one's device tokens are chosen.
        choose: gives the tokens.
        ends: token ids that end a row.
        max_new_tokens: the limit of emitted tokens.
        slots: how many rows are under way at once.
        late: notice a step late that a row has ended, so that one step waits for the device once; the step that the row
            then runs for nothing leaves no trace. None: on accelerators, where waiting is what costs, unless an open
            block looks on.

    Yields:
        As soon as each is done: the item, its columns token by token (without the end), and whether the limit stopped
        it.
    """
    device = lanes[0].model.device
    if late is None:
        late = device.type != "cpu" and not any(followed(lane.model.hf) for lane in lanes)
    queue = deque(range(len(lanes[0].prompts)))
    rows: list[_Row] = []
    runners: list[Runner] = []
    steps: list[Step] = []
    before = torch.zeros(0, 1, device=device)
    while queue or rows:
        free = slots - len(rows)
        if queue and (not rows or (free * _AN_EIGHTH >= slots and all(runner.may_admit for runner in runners))):
            new = [queue.popleft() for _ in range(min(free, len(queue)))]
            if rows:
                more = [
                    runner.admit([lane.prompts[item] for item in new])
                    for lane, runner in zip(lanes, runners, strict=True)
                ]
                steps = [step + taken for step, taken in zip(steps, more, strict=True)]
            else:
                runners = [lane.begin(new, max_new_tokens) for lane in lanes]
                steps, before = [runner.prefill() for runner in runners], before[:0]
            rows += [_Row(item) for item in new]
        emitted = len(before)  # rows behind these have only just been taken in
        now = Now(
            steps,
            runners,
            items=torch.tensor([row.item for row in rows], device=device),
            counts=torch.tensor(
                [len(row.columns) + (late and at < emitted) for at, row in enumerate(rows)], device=device
            ),
            last=torch.nn.functional.pad(before[:, 0].long(), (0, len(rows) - emitted), value=-1),
            _unread=before if late and emitted else None,
        )
        columns = choose(now)
        if not late:
            known, emitted = columns.tolist(), len(rows)
        else:
            if now._unread is not None:
                now.fetch(columns[:, 0])
            known = now._read
        going = []
        for at, row in enumerate(rows):
            if at < emitted:
                if int(known[at][0]) in ends:
                    yield row.item, row.columns, False
                    continue
                row.columns.append(known[at])
            if len(row.columns) + late == max_new_tokens:
                final = [columns[at].tolist()] if late else []
                ended = late and int(final[0][0]) in ends
                yield row.item, row.columns + ([] if ended else final), not ended
                continue
            going.append(at)
        if len(going) < len(rows):
            kept = torch.tensor(going, dtype=torch.long, device=device)
            for lane, runner in zip(lanes, runners, strict=True):
                runner.keep(kept.to(lane.model.device), hold=bool(queue))
            rows, columns = [rows[at] for at in going], columns[kept]
        before = columns
        if rows:
            tokens = columns[:, 0].long()
            steps = [runner.step(tokens.to(lane.model.device)) for lane, runner in zip(lanes, runners, strict=True)]

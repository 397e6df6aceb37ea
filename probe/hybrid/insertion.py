"""Arms that insert given text: an ending or a waiting text at a budget of thinking, or an instruction.

Each is a script, which says for every row the token that is inserted now. A script reads only what was emitted and what
the model would emit, so answers do not depend on the batch, and resuming changes nothing.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from probe.errors import ProbeError
from probe.hybrid.closing import Closing
from probe.hybrid.moment import Arm, Emit, Emitted, Moment, Needs, Where
from probe.hybrid.past import History
from probe.hybrid.strength import FixedStrength
from probe.hybrid.which import OneBehaviour


class Script(ABC):
    """Says which tokens are inserted, and when."""

    @abstractmethod
    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]:
        """The token inserted now into each row; −1 where the model continues."""

    @property
    def closings(self) -> frozenset[Closing]:
        """The closing tags that the script looks for in what was emitted."""
        return frozenset()


@dataclass(frozen=True)
class Budget(Script):
    """Budget forcing (Muennighoff et al., 2501.19393): thinking is stopped at a number of tokens, or extended to one.

    Without limits the script inserts nothing.

    Attributes:
        close: the closing tag; after it there is no thinking.
        ends: tokens that end the thinking where the model would emit them.
        least: where the model would end its thinking before this many tokens, ``wait`` is inserted instead; 0: nowhere.
        wait: token ids; it is inserted as often as the model would end its thinking.
        most: after this many tokens, ``ending`` is inserted if the thinking was not closed; None: nowhere.
        ending: token ids.

    Raises:
        ProbeError: if the thinking would be extended beyond its end, or by nothing.
    """

    close: Closing
    ends: tuple[int, ...]
    least: int = 0
    wait: tuple[int, ...] = ()
    most: int | None = None
    ending: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.most is not None and self.least > self.most:
            raise ProbeError(f"thinking of at least {self.least} tokens does not fit into {self.most}; lower the least")
        if self.least and not self.wait:
            raise ProbeError(f"thinking is to have at least {self.least} tokens; give a waiting text to extend it by")

    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]:
        history, counts = _history(moment), moment.counts
        inserted = torch.full_like(counts, -1)
        if self.least:
            inserted = self._waiting(moment, history)
        if self.most is not None and self.ending:
            offset = counts - self.most
            closed = history.closed[self.close]
            in_time = (closed > 0) & (closed <= self.most)
            stops = (offset >= 0) & (offset < len(self.ending)) & ~in_time
            inserted = torch.where(stops, _at(self.ending, offset), inserted)
        return inserted

    @property
    def closings(self) -> frozenset[Closing]:
        return frozenset({self.close})

    def _waiting(self, moment: Moment, history: History) -> Int[Tensor, " rows"]:
        """The token of the waiting text that comes next; −1 where it is not being inserted."""
        counts, size = moment.counts, len(self.wait)
        begun = (counts - history.own) % size
        would_end = torch.isin(moment.draw(moment.base.logits), torch.tensor(self.ends, device=counts.device))
        begins = would_end & (counts < self.least) & (history.closed[self.close] == 0)
        if self.most is not None:
            begins &= counts + size <= self.most
        open_ = (begun > 0) if self.most is None else (begun > 0) & (counts < self.most)
        return torch.where(open_, _at(self.wait, begun), torch.where(begins, self.wait[0], -1))


@dataclass(frozen=True)
class Instruction(Script):
    """Thinking intervention (Wu et al., 2503.24370): an instruction is inserted where the thinking begins.

    It follows the opening tag if the model writes one, else it begins the answer.

    Attributes:
        text: token ids of the instruction.
        open: token ids of the opening tag.
    """

    text: tuple[int, ...]
    open: tuple[int, ...] = ()

    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]:
        history, counts = _history(moment), moment.counts
        begin = torch.zeros_like(counts)
        if self.open:
            first = torch.where(counts == 0, moment.draw(moment.base.logits), history.first)
            begin = torch.where((first == self.open[0]) & ~history.first_steered, len(self.open), 0)
        offset = counts - begin
        return torch.where((offset >= 0) & (offset < len(self.text)), _at(self.text, offset), -1)


@dataclass(frozen=True)
class Inserts(Where):
    """Where a script inserts a token.

    Attributes:
        script: the script.
    """

    script: Script

    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]:
        return self.script(moment) >= 0

    @property
    def needs(self) -> Needs:
        return Needs(history=True, closings=self.script.closings)


@dataclass(frozen=True)
class Inserted(Emit):
    """Emit the token that a script inserts.

    Attributes:
        script: the script.
    """

    script: Script

    def __call__(self, moment: Moment, *_: Tensor) -> Emitted:
        return Emitted(self.script(moment))

    @property
    def needs(self) -> Needs:
        return Needs(history=True, closings=self.script.closings)


def script_arm(script: Script, name: str) -> Arm:
    """Make the arm in which a model answers alone and a script inserts text.

    Args:
        script: a :class:`Budget` or an :class:`Instruction`.
    """
    return Arm(name, Inserts(script), OneBehaviour(-1), FixedStrength(), Inserted(script))


def _history(moment: Moment) -> History:
    assert moment.history is not None  # the parts say that they need it
    return moment.history


def _at(text: tuple[int, ...], offset: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """The tokens of a text at offsets that may lie outside of it."""
    return torch.tensor(text, device=offset.device)[offset.clamp(0, len(text) - 1)]

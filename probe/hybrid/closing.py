"""The tag that closes the thinking, found in emitted tokens however the tokenizer divides it.

Tokenizers merge a tag of several tokens with its neighbours: ``ok.</think>`` may hold the token ``.</``. So the tag is
matched byte by byte, by an automaton (Knuth, Morris and Pratt). Its state is the number of bytes of the tag that the
text ends with, and each token is a step.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from probe.errors import ProbeError
from probe.models import Model
from probe.traces import vocabulary_bytes


@dataclass(frozen=True)
class Closing:
    """A closing tag as a text, and how each token of a vocabulary continues it.

    Attributes:
        tag: the text.
        steps: for each number of bytes of the tag that the text ends with and each token, the number after the token;
            the last row is the found tag, and the last column stands for no token.
    """

    tag: str
    steps: Int[Tensor, "states tokens"] = field(repr=False, compare=False)

    @classmethod
    def of(cls, model: Model, tag: str) -> "Closing":
        """The closing tag in the vocabulary of a model.

        Args:
            model: its tokenizer says which bytes each token has.
            tag: the text of the tag.

        Raises:
            ProbeError: if the text is empty.
        """
        if not tag:
            raise ProbeError("the closing tag is empty; set think_close in the pair")
        table = _steps(tag.encode(), tuple(vocabulary_bytes(model.tokenizer)))
        known = table.shape[1]
        steps = table.new_zeros(len(table), max(model.n_embeddings, known) + 1)
        steps[:, :known] = table
        steps[-1] = len(table) - 1  # for the last column too
        return cls(tag, steps.to(model.device))

    def on(self, device: torch.device) -> "Closing":
        """The same tag on another device."""
        return Closing(self.tag, self.steps.to(device))

    def after(self, state: Int[Tensor, " rows"], tokens: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
        """The state of each text after one more token; a text in which the tag was found stays in that state.

        Args:
            state: the state before, 0 at the beginning of a text.
            tokens: ids, −1 for no token.
        """
        return self.steps[state, tokens].long()

    def found(self, state: Int[Tensor, " rows"]) -> Bool[Tensor, " rows"]:
        """Whether the tag was found in each text.

        Args:
            state: from :meth:`after`.
        """
        return state == len(self.steps) - 1

    def span(self, tokens: Sequence[int]) -> tuple[int, int] | None:
        """The tokens that the first tag of a text spans, from the first to the one after the last; None without it."""
        row = torch.tensor([*tokens], dtype=torch.long, device=self.steps.device)[None]
        ended = self._ended(row)[0].nonzero()
        if not len(ended):
            return None
        end = int(ended[0]) + 1
        return next(at for at in range(end - 1, -1, -1) if bool(self._ended(row[:, at:end])[0, -1])), end

    def begun(self, tokens: Iterable[int]) -> set[int]:
        """Every token of the vocabulary that begins the tag with as much of it as one of these tokens does.

        Args:
            tokens: ids of tokens at which the tag begins.
        """
        shares = self.steps[0, [*tokens]].unique()
        return set(torch.isin(self.steps[0], shares[shares > 0]).nonzero()[:, 0].tolist())

    def _ended(self, tokens: Int[Tensor, "rows columns"]) -> Bool[Tensor, "rows columns"]:
        """Whether a tag lies in the tokens up to each column that may hold one: as many as the tag has bytes."""
        size, steps = len(self.steps) - 1, self.steps.to(tokens.device)
        windows = torch.nn.functional.pad(tokens, (size, 0), value=-1).unfold(1, size, 1)[:, 1:]
        state = torch.zeros_like(tokens)
        for at in range(size):
            state = steps[state, windows[..., at]].long()
        return state == size


@lru_cache(maxsize=4)
def _steps(tag: bytes, pieces: tuple[bytes, ...]) -> Int[Tensor, "states tokens"]:
    """The state after each token, from each state."""
    size = len(tag)
    starts, ends = tuple(tag[:n] for n in range(1, size)), tuple(tag[n:] for n in range(size))

    def after(text: bytes) -> int:
        if tag in text:
            return size
        return next((n for n in range(size - 1, 0, -1) if text.endswith(tag[:n])), 0)

    alone = [after(piece) if tag in piece or piece.endswith(starts) else 0 for piece in pieces]
    # From another state, a token differs only if it lies in the tag or holds its end.
    differ = [i for i, piece in enumerate(pieces) if piece in tag or piece.startswith(ends)]
    table = [alone]
    for state in range(1, size):
        row = [*alone]
        for i in differ:
            row[i] = after(tag[:state] + pieces[i])
        table.append(row)
    return torch.tensor([*table, [size] * len(alone)], dtype=torch.int16)

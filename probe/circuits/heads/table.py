"""Scores of every attention head, each with a matched null and a p value that is corrected over heads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from probe.circuits.heads.changed import Head
from probe.config import nearest
from probe.errors import ProbeError
from probe.html import html_table
from probe.statistics import holm, sign_flips

_LEVEL = 0.05


@dataclass(frozen=True)
class HeadScores:
    """One score of every head, and what it would be without what is looked for.

    Attributes:
        kind: what is looked for, such as ``induction``.
        meaning: what the score is, in one line.
        score: the mean over items, ``[layers, heads]``.
        null: the same measured where it should not be, such as in a text without repeats.
        p: p value that the score is larger than its null, by flipping the signs of the differences of the items, and
            adjusted for the number of heads (Holm); one-sided.
        n: the number of items, such as sequences or traces.
    """

    kind: str
    meaning: str
    score: Float[Tensor, "layers heads"]
    null: Float[Tensor, "layers heads"]
    p: Float[Tensor, "layers heads"]
    n: int

    @classmethod
    def of(
        cls,
        kind: str,
        meaning: str,
        values: Float[Tensor, "items layers heads"],
        nulls: Float[Tensor, "items layers heads"],
        *,
        seed: int = 0,
    ) -> "HeadScores":
        """Compare a score with its null over items.

        Args:
            kind, meaning: as above.
            values: the score of each item.
            nulls: the null of the same items.
            seed: seeds the random signs, where there are too many items to try all.
        """
        p = sign_flips((values - nulls).flatten(1).double().numpy(), seed=seed)
        adjusted = list(holm({str(i): each for i, each in enumerate(p.tolist())}).values())
        shape = values.shape[1:]
        return cls(kind, meaning, values.mean(0), nulls.mean(0), torch.tensor(adjusted).view(shape), values.shape[0])

    def __repr__(self) -> str:
        found = int((self.p <= _LEVEL).sum())
        return f"HeadScores({self.kind}: {found} of {self.p.numel()} heads above their null, {self.n} items)"


@dataclass(frozen=True)
class HeadTable:
    """Scores of all heads of a model: one row for each head, one column for each kind of score and its p value.

    Attributes:
        model: the name of the model.
        kinds: the scores, each over all layers and heads.
    """

    model: str
    kinds: tuple[HeadScores, ...]

    def __getitem__(self, kind: str) -> HeadScores:
        """The scores of one kind.

        Raises:
            ProbeError: if there are none; the message names the nearest kind.
        """
        for each in self.kinds:
            if each.kind == kind:
                return each
        known = [each.kind for each in self.kinds]
        raise ProbeError(f"this table has no heads of kind {kind!r}; {nearest(kind, known)}")

    def __add__(self, other: "HeadTable") -> "HeadTable":
        """A table with the kinds of both.

        Raises:
            ProbeError: if they are of different models, or both have a kind.
        """
        both = {each.kind for each in self.kinds} & {each.kind for each in other.kinds}
        if self.model != other.model or both:
            why = f"both have {both.pop()!r}" if both else f"one is of {self.model}, the other of {other.model}"
            raise ProbeError(f"these tables cannot be joined: {why}")
        return HeadTable(self.model, (*self.kinds, *other.kinds))

    def top(self, kind: str, n: int = 5, *, level: float = _LEVEL) -> list[Head]:
        """The heads of a kind whose scores are furthest above their null, as ``(layer, head)``.

        Args:
            kind: one of the kinds.
            n: the largest number of heads.
            level: the largest adjusted p value; 1 for all heads.
        """
        found = self[kind]
        n_heads = found.score.shape[1]
        order = (found.score - found.null).flatten().argsort(descending=True).tolist()
        return [divmod(at, n_heads) for at in order if found.p.flatten()[at] <= level][:n]

    def scores(self, what: Literal["score", "null", "p"] = "score") -> dict[str, dict[Head, float]]:
        """The score, the null or the p value of each head by kind.

        Args:
            what: which of the three.
        """
        layers, heads = self.kinds[0].score.shape
        names = [(layer, head) for layer in range(layers) for head in range(heads)]
        return {each.kind: dict(zip(names, getattr(each, what).flatten().tolist(), strict=True)) for each in self.kinds}

    def rows(self) -> list[dict[str, object]]:
        """One row for each head, for ``pandas.DataFrame``: ``layer``, ``head``, and each kind's score, null and p."""
        layers, heads = self.kinds[0].score.shape
        found: list[dict[str, object]] = []
        for layer in range(layers):
            for head in range(heads):
                row: dict[str, object] = {"layer": layer, "head": head}
                for each in self.kinds:
                    parts = ((each.kind, each.score), (f"{each.kind} null", each.null), (f"{each.kind} p", each.p))
                    row |= {name: float(part[layer, head]) for name, part in parts}
                found.append(row)
        return found

    def __repr__(self) -> str:
        best = "; ".join(
            f"{each.kind}: {', '.join(f'a{layer}.h{head}' for layer, head in self.top(each.kind, 3)) or 'none'}"
            for each in self.kinds
        )
        return f"HeadTable({self.model}, strongest heads: {best})"

    def _repr_html_(self) -> str:
        head = ["kind", "what it measures", "items", "strongest heads above their null (score, null, adjusted p)"]
        rows = []
        for each in self.kinds:
            strongest = [
                f"a{layer}.h{at} ({each.score[layer, at]:.2f}, {each.null[layer, at]:.2f}, p {each.p[layer, at]:.2g})"
                for layer, at in self.top(each.kind, 4)
            ]
            rows.append((each.kind, each.meaning, each.n, "\n".join(strongest) or "none"))
        return html_table(head, rows, f"Heads of {self.model}")


def stacked(rows: Sequence[Float[Tensor, "layers heads"]]) -> Float[Tensor, "items layers heads"]:
    """Scores of items in one tensor, on the CPU in float32."""
    return torch.stack([row.float().cpu() for row in rows])

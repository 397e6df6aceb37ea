"""Which heads a behaviour came to hang on in training, and which it left: importance before and after, with a null.

Thinking Sparks (2509.25758) takes the heads of one circuit that are not in the other. Two circuits of one model, found
on other pairs, differ too; so what counts here is a difference that pairs agree on.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import spearmanr
from torch import Tensor
from tqdm.auto import tqdm

from probe.circuits import Circuit, EdgeLens, Head, Pairs, edge_scores
from probe.errors import ProbeError
from probe.models import Model

Importance = Float[Tensor, "layers heads"]
_LEVEL = 0.05
_FLIPS = 1024
"""Signs that are tried, of all there are, at most."""


@dataclass(frozen=True)
class HeadShift:
    """How much each head carries before and after training.

    Attributes:
        before, after: share of all scores that leaves the head, ``[parts, layers, heads]``: by parts of the pairs.
        in_before, in_after: whether an edge of the head is among the strongest.
        p: of no difference: signs of the parts' differences flipped, the largest of all heads counted each time, so
            that it holds for all of them together.
    """

    before: Float[Tensor, "parts layers heads"]
    after: Float[Tensor, "parts layers heads"]
    in_before: Bool[Tensor, "layers heads"]
    in_after: Bool[Tensor, "layers heads"]
    p: Float[Tensor, "layers heads"]

    @property
    def contrast(self) -> Importance:
        """(after − before) / (after + before), from −1 for a head that is lost to 1 for a new one."""
        before, after = self.before.mean(0), self.after.mean(0)
        return (after - before) / (after + before + 1e-6)

    @property
    def grown(self) -> list[Head]:
        """Heads that carry more than before, beyond what pairs differ in; the largest growth first."""
        return self._where(1.0)

    @property
    def shrunk(self) -> list[Head]:
        """Heads that carry less than before."""
        return self._where(-1.0)

    @property
    def emergent(self) -> list[Head]:
        """Those that have grown and were in no edge of the circuit before."""
        return [at for at in self.grown if self.in_after[at] and not self.in_before[at]]

    @property
    def lost(self) -> list[Head]:
        """Those that have shrunk and are in no edge of the circuit any more."""
        return [at for at in self.shrunk if self.in_before[at] and not self.in_after[at]]

    def _where(self, sign: float) -> list[Head]:
        change = sign * (self.after - self.before).mean(0)
        places = ((self.p < _LEVEL) & (change > 0)).nonzero().tolist()
        return sorted(((layer, head) for layer, head in places), key=lambda at: -float(change[at]))

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{what}</td><td>{', '.join(f'a{layer}.h{head}' for layer, head in heads) or 'none'}</td></tr>"
            for what, heads in (
                ("grown", self.grown),
                ("shrunk", self.shrunk),
                ("emergent", self.emergent),
                ("lost", self.lost),
            )
        )
        return f"<table>{rows}</table>"


def head_importance(
    model: Model,
    pairs: Pairs,
    *,
    parts: int = 8,
    edges: float = 0.1,
    steps: int = 5,
) -> tuple[Float[Tensor, "parts layers heads"], Bool[Tensor, "layers heads"]]:
    """The share of all edge scores that leaves each head, by parts of the pairs; and whether it is in the circuit.

    Edges are scored by integrated gradients of the inputs, on the logit difference.

    Args:
        parts: every so-many-th pair together.
        edges: the circuit is the strongest share of edges, scored on all pairs.

    Raises:
        ProbeError: if there are fewer pairs than parts.
    """
    if len(pairs) < parts:
        raise ProbeError(f"{len(pairs)} pairs cannot be parted into {parts}: give more pairs")
    lens = EdgeLens(model)
    scores = edge_scores(lens, pairs, steps=steps)
    found = [Circuit(lens.graph, scores[part::parts].mean(0)).heads() for part in range(parts)]
    circuit = Circuit(lens.graph, scores.mean(0)).top(max(1, round(edges * len(lens.graph))))
    return torch.stack(found), circuit.heads() > 0


def head_shift(
    before: Model,
    after: Model,
    pairs: Pairs,
    *,
    parts: int = 8,
    edges: float = 0.1,
    steps: int = 5,
) -> HeadShift:
    """Attribute the same pairs in two models, part by part, and test each head's difference.

    Raises:
        ProbeError: if the two differ in their heads, or there are fewer pairs than parts.
    """
    (first, in_first), (second, in_second) = (
        head_importance(model, pairs, parts=parts, edges=edges, steps=steps) for model in (before, after)
    )
    if first.shape != second.shape:
        raise ProbeError(f"{before.name} and {after.name} have other numbers of blocks or heads")
    return HeadShift(first, second, in_first, in_second, flipped_p(second - first))


def flipped_p(differences: Float[Tensor, "parts layers heads"], seed: int = 0) -> Importance:
    """Two-sided p of a mean of zero by flipping the signs of whole parts, the largest statistic of all heads kept."""
    values = differences.flatten(1).double().numpy()
    n = len(values)
    if 2**n <= _FLIPS:
        signs = np.array(list(product((1.0, -1.0), repeat=n)))
    else:
        signs = np.random.default_rng(seed).choice((1.0, -1.0), (_FLIPS, n))
        signs[0] = 1.0
    means = signs @ values / n
    spread = np.sqrt(np.maximum((values**2).mean(0) - means**2, 0)) + 1e-9
    statistics = np.abs(means) / spread
    largest = statistics.max(1)
    p = (largest[:, None] >= np.abs(values.mean(0)) / spread[0] - 1e-12).mean(0)
    return torch.from_numpy(p).float().view(differences.shape[1:])


def importance_series(
    models: Iterable[Model], pairs: Pairs, *, edges: float = 0.1, steps: int = 5, progress: bool = False
) -> tuple[Float[Tensor, "models layers heads"], Bool[Tensor, "models layers heads"]]:
    """Importance of every head in each checkpoint of a series, on the same pairs, and who is in its circuit."""
    found = [
        head_importance(model, pairs, parts=1, edges=edges, steps=steps)
        for model in tqdm(models, desc="checkpoints", unit="model", disable=not progress)
    ]
    return torch.stack([each[0][0] for each in found]), torch.stack([each[1] for each in found])


@dataclass(frozen=True)
class Agreement:
    """Do several runs of training change the same heads?

    Attributes:
        value: Spearman correlation of the runs' changes over heads, the mean over pairs of runs.
        null: its 95 % range if heads are exchanged within their blocks, each run by itself.
        p: share of such exchanges that agree as well.
    """

    value: float
    null: tuple[float, float]
    p: float


def agreement(
    changes: Sequence[Importance], others: Sequence[Importance] | None = None, *, draws: int = 1000, seed: int = 0
) -> Agreement:
    """Compare changes of importance between runs, or between the runs of two ways of training.

    Args:
        changes: of each run, after − before.
        others: of the other way; None compares the first with each other.

    Raises:
        ProbeError: if there are not two runs to compare.
    """
    arrays = [change.double().numpy() for change in changes]
    others_ = None if others is None else [change.double().numpy() for change in others]
    if len(arrays) < 2 and others_ is None:
        raise ProbeError("one run of training agrees with itself: give the changes of two or more")

    def mean(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray] | None) -> float:
        places = list(combinations(ours, 2)) if theirs is None else list(product(ours, theirs))
        found: list[Any] = [spearmanr(a.ravel(), b.ravel()) for a, b in places]
        return float(np.mean([each.statistic for each in found]))

    rng = np.random.default_rng(seed)

    def exchanged(some: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [rng.permuted(each, axis=1) for each in some]

    value = mean(arrays, others_)
    drawn = np.array([mean(exchanged(arrays), None if others_ is None else exchanged(others_)) for _ in range(draws)])
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Agreement(value, (float(low), float(high)), float((1 + (drawn >= value).sum()) / (1 + draws)))


@dataclass(frozen=True)
class SharedHeads:
    """Heads that each of several runs has as new.

    Attributes:
        heads: in all of them.
        by_chance: how many there would be on average if each run had as many of the same blocks, drawn.
        p: share of such draws with as many.
    """

    heads: tuple[Head, ...]
    by_chance: float
    p: float


def shared_heads(runs: Sequence[Sequence[Head]], n_heads: int, *, draws: int = 2000, seed: int = 0) -> SharedHeads:
    """Compare what several runs of training have in common with what chance would give them.

    Args:
        runs: the heads of each.
        n_heads: of a block.
    """
    shared = set.intersection(*map(set, runs))
    rng = np.random.default_rng(seed)

    def drawn(run: Sequence[Head]) -> set[Head]:
        counts = Counter(layer for layer, _ in run)
        return {
            (layer, int(head)) for layer, count in counts.items() for head in rng.choice(n_heads, count, replace=False)
        }

    sizes = np.array([len(set.intersection(*map(drawn, runs))) for _ in range(draws)])
    p = float((1 + (sizes >= len(shared)).sum()) / (1 + draws))
    return SharedHeads(tuple(sorted(shared)), float(sizes.mean()), p)

"""The heads that a behaviour depends on before and after training, with a test of each head's change.

Thinking Sparks (2509.25758) takes the heads that are in one circuit and not in the other. Circuits of one model differ
too when they are found on different pairs, so a change counts here only if the pairs agree on it.
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

from probe.circuits import Circuit, EdgeLens, Head, Pairs, edge_scores
from probe.errors import NotApplicable, ProbeError
from probe.html import html_table
from probe.models import Model
from probe.progress import progress_bar
from probe.statistics import sign_flips

Importance = Float[Tensor, "layers heads"]
_ALPHA = 0.05
_FLIPS = 1024
"""The largest number of sign flips in the test; with at most ten parts all of them are tried."""


@dataclass(frozen=True)
class HeadShift:
    """The importance of each head before and after training.

    Attributes:
        before: each head's share of all edge scores before training, one table for each part of the pairs.
        after: the same after training.
        in_before: True if the circuit before training contains an edge from the head.
        in_after: the same after training.
        p: p-value for no change, by flipping the signs of the parts' differences and comparing with the largest
            statistic of all heads, so that it is corrected for the number of heads.
    """

    before: Float[Tensor, "parts layers heads"]
    after: Float[Tensor, "parts layers heads"]
    in_before: Bool[Tensor, "layers heads"]
    in_after: Bool[Tensor, "layers heads"]
    p: Float[Tensor, "layers heads"]

    @property
    def contrast(self) -> Importance:
        """(after − before) / (after + before): −1 for a head that lost all importance, 1 for a new one."""
        before, after = self.before.mean(0), self.after.mean(0)
        return (after - before) / (after + before + 1e-6)

    @property
    def grown(self) -> list[Head]:
        """Heads that are significantly more important than before, the largest growth first."""
        return self._where(1.0)

    @property
    def shrunk(self) -> list[Head]:
        """Heads that are significantly less important than before, the largest loss first."""
        return self._where(-1.0)

    @property
    def emergent(self) -> list[Head]:
        """Grown heads that were not in the circuit before."""
        return [at for at in self.grown if self.in_after[at] and not self.in_before[at]]

    @property
    def lost(self) -> list[Head]:
        """Shrunk heads that are no longer in the circuit."""
        return [at for at in self.shrunk if self.in_before[at] and not self.in_after[at]]

    @property
    def least_p(self) -> float:
        """The smallest p-value that so many parts allow, where all of them change alike."""
        return max(2.0 ** (1 - len(self.before)), 1 / _FLIPS)

    def _where(self, sign: float) -> list[Head]:
        change = sign * (self.after - self.before).mean(0)
        places = ((self.p < _ALPHA) & (change > 0)).nonzero().tolist()
        return sorted(((layer, head) for layer, head in places), key=lambda at: -float(change[at]))

    def __repr__(self) -> str:
        return f"HeadShift({len(self.grown)} heads grown, {len(self.shrunk)} shrunk, of {self.p.numel()})"

    def _repr_html_(self) -> str:
        kinds = ("grown", "shrunk", "emergent", "lost")
        return html_table((), [(kind, head_names(getattr(self, kind))) for kind in kinds])


def head_names(heads: Sequence[Head]) -> str:
    """Heads as text, for example ``a2.h1, a3.h0``; ``none`` if there are none.

    Args:
        heads: heads as ``(layer, head)``.
    """
    return ", ".join(f"a{layer}.h{head}" for layer, head in heads) or "none"


@dataclass(frozen=True)
class HeadImportance:
    """The importance of each head, for several parts of the pairs or several checkpoints.

    Attributes:
        share: each head's share of all edge scores, one table for each part or checkpoint.
        in_circuit: True if the circuit contains an edge from the head: one table for all parts, or one for each
            checkpoint.
    """

    share: Float[Tensor, "parts layers heads"]
    in_circuit: Bool[Tensor, "*checkpoints layers heads"]

    def __repr__(self) -> str:
        return f"HeadImportance({' × '.join(map(str, self.share.shape))} values)"


def head_importance(
    model: Model,
    pairs: Pairs,
    *,
    n_parts: int = 8,
    edges: float = 0.1,
    steps: int = 5,
    progress: bool = False,
) -> HeadImportance:
    """Compute each head's share of all edge scores, separately for several parts of the pairs.

    Edges are scored by integrated gradients of the inputs, on the logit difference.

    Args:
        n_parts: number of parts; pair i belongs to part i modulo this number.
        edges: size of the circuit, as a share of all edges; it is found on all pairs.
        steps: number of points of the integrated gradients.
        progress: show a progress bar.

    Raises:
        NotApplicable: if there are fewer pairs than parts, or the model's edges cannot be separated.
    """
    if len(pairs) < n_parts:
        raise NotApplicable(f"{len(pairs)} pairs cannot be divided into {n_parts} parts: give more pairs")
    lens = EdgeLens(model)
    scores = edge_scores(lens, pairs.on(model.device), steps=steps, progress=progress)
    found = [Circuit(lens.graph, scores[part::n_parts].mean(0)).heads() for part in range(n_parts)]
    circuit = Circuit(lens.graph, scores.mean(0)).top(max(1, round(edges * len(lens.graph))))
    return HeadImportance(torch.stack(found), circuit.heads() > 0)


def head_shift(
    before: Model,
    after: Model,
    pairs: Pairs,
    *,
    n_parts: int = 8,
    edges: float = 0.1,
    steps: int = 5,
    progress: bool = False,
) -> HeadShift:
    """Compute the importance of each head in two models on the same pairs, and test each head's change.

    Args:
        before: the model before training.
        after: the model after training.
        pairs: clean and corrupt texts that both models read.
        n_parts, edges, steps, progress: as in :func:`head_importance`.

    Raises:
        NotApplicable: if the models differ in their numbers of blocks or heads, there are fewer pairs than parts, or
            a model's edges cannot be separated.
    """
    first, second = (
        head_importance(model, pairs, n_parts=n_parts, edges=edges, steps=steps, progress=progress)
        for model in (before, after)
    )
    if first.share.shape != second.share.shape:
        raise NotApplicable(f"{before.name} and {after.name} differ in their numbers of blocks or heads")
    apart = (second.share - first.share).flatten(1).double().numpy()
    p = torch.from_numpy(sign_flips(apart, two_sided=True, together=True, flips=_FLIPS)).float()
    shape = first.share.shape[1:]
    return HeadShift(first.share, second.share, first.in_circuit, second.in_circuit, p.view(shape))


def importance_series(
    models: Iterable[Model], pairs: Pairs, *, edges: float = 0.1, steps: int = 5, progress: bool = False
) -> HeadImportance:
    """Compute the importance of each head in each checkpoint of a series, on the same pairs.

    Args:
        models: the checkpoints, in order; each may be loaded when it is reached.
        pairs: clean and corrupt texts that all of them read.
        edges, steps: as in :func:`head_importance`.
        progress: show a progress bar.

    Returns:
        One table for each checkpoint.
    """
    found = [
        head_importance(model, pairs, n_parts=1, edges=edges, steps=steps)
        for model in progress_bar(models, desc="checkpoints", unit="model", show=progress)
    ]
    shares, members = (
        torch.stack(part) for part in zip(*((each.share[0], each.in_circuit) for each in found), strict=True)
    )
    return HeadImportance(shares, members)


@dataclass(frozen=True)
class Agreement:
    """Whether several training runs change the same heads.

    Attributes:
        value: Spearman correlation over heads of the changes of two runs, averaged over pairs of runs; None if the
            changes of a run are all equal, which leaves nothing to correlate.
        null: its 95 % range when heads are permuted within their blocks, independently for each run.
        p: p-value, (k + 1) / (n + 1), where k of n permutations agree at least as well.
    """

    value: float | None
    null: tuple[float, float] | None
    p: float | None


def agreement(
    changes: Sequence[Importance],
    others: Sequence[Importance] | None = None,
    *,
    n_permutations: int = 1000,
    seed: int = 0,
) -> Agreement:
    """Measure how well the changes of importance agree between runs, or between the runs of two training methods.

    Args:
        changes: importance after minus before, one table for each run.
        others: the same for the runs of another method; None compares the first runs with each other.
        n_permutations: number of permutations of the null.
        seed: seeds the permutations.

    Raises:
        ProbeError: if there are not two runs to compare.
    """
    arrays = [change.double().numpy() for change in changes]
    others_ = None if others is None else [change.double().numpy() for change in others]
    if len(arrays) < 2 and others_ is None:
        raise ProbeError("one run always agrees with itself: give the changes of two or more runs")

    if any(np.ptp(each) == 0 or not np.isfinite(each).all() for each in (*arrays, *(others_ or ()))):
        return Agreement(None, None, None)

    def mean(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray] | None) -> float:
        pairs = combinations(ours, 2) if theirs is None else product(ours, theirs)
        found: list[Any] = [spearmanr(a.ravel(), b.ravel()) for a, b in pairs]
        return float(np.mean([each.statistic for each in found]))

    rng = np.random.default_rng(seed)

    def permuted(some: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [rng.permuted(each, axis=1) for each in some]

    value = mean(arrays, others_)
    null = np.array(
        [mean(permuted(arrays), None if others_ is None else permuted(others_)) for _ in range(n_permutations)]
    )
    low, high = np.percentile(null, [2.5, 97.5])
    return Agreement(value, (float(low), float(high)), float((1 + (null >= value).sum()) / (1 + n_permutations)))


@dataclass(frozen=True)
class SharedHeads:
    """Heads that emerge in each of several runs.

    Attributes:
        heads: the heads that are common to all runs.
        by_chance: their expected number if each run had random heads, as many in each block as it has.
        p: p-value, (k + 1) / (n + 1), where k of n random choices have at least as many common heads; None if a run has
            no heads, so that none can be common.
    """

    heads: tuple[Head, ...]
    by_chance: float
    p: float | None


def shared_heads(runs: Sequence[Sequence[Head]], n_heads: int, *, n_random: int = 2000, seed: int = 0) -> SharedHeads:
    """Find the heads that several runs have in common, and compare their number with random heads.

    Args:
        runs: the heads of each run, as ``(layer, head)``.
        n_heads: number of heads of a block.
        n_random: number of random choices.
        seed: seeds these choices.
    """
    shared = set.intersection(*map(set, runs))
    rng = np.random.default_rng(seed)

    def random(run: Sequence[Head]) -> set[Head]:
        counts = Counter(layer for layer, _ in run)
        return {
            (layer, int(head)) for layer, count in counts.items() for head in rng.choice(n_heads, count, replace=False)
        }

    sizes = np.array([len(set.intersection(*map(random, runs))) for _ in range(n_random)])
    p = float((1 + (sizes >= len(shared)).sum()) / (1 + n_random)) if all(map(len, runs)) else None
    return SharedHeads(tuple(sorted(shared)), float(sizes.mean()), p)

"""Faithfulness: how much of the metric a circuit keeps when every other edge is corrupt, measured as in MIB."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from probe.circuits.edges.circuit import Circuit
from probe.circuits.edges.lens import ALL, EdgeLens, Ids, Metric, Window
from probe.circuits.pairs.pairs import Pairs, metric_of
from probe.errors import NotApplicable
from probe.progress import progress_bar

#: Shares of all edges at which circuits are measured; those of MIB (Mueller et al., 2504.13151).
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Faithfulness:
    """Faithfulness of circuits of several sizes: 1 keeps the metric of the whole model, 0 keeps nothing.

    Attributes:
        shares: size of each circuit, as a share of all edges.
        values: (metric of the circuit − metric of the corrupt run) / (metric of the clean run − metric of the corrupt
            run).
    """

    shares: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def cpr(self) -> float:
        """Circuit performance ratio: the area under the curve. Higher is better."""
        return self._area(np.asarray(self.values))

    @property
    def cmd(self) -> float:
        """Circuit-model distance: the area between the curve and 1. Lower is better, also for circuits above 1."""
        return self._area(np.abs(1 - np.asarray(self.values)))

    def at(self, share: float) -> float:
        """Faithfulness at any share, interpolated linearly between those measured."""
        return float(np.interp(share, self.shares, self.values))

    def _area(self, values: np.ndarray) -> float:
        shares = np.asarray(self.shares)
        width = shares[-1] - shares[0]
        return float(np.trapezoid(values, shares) / width) if width else float(values[0])


def faithfulness(
    lens: EdgeLens,
    circuit: Circuit,
    pairs: Pairs,
    shares: Sequence[float] = SHARES,
    *,
    metric: str = "logit-difference",
    window: Window = ALL,
    progress: bool = False,
) -> Faithfulness:
    """Measure the faithfulness of circuits made of the strongest edges, for several sizes.

    Args:
        circuit: its scores order the edges.
        pairs: texts other than those that the scores were computed on.
        shares: sizes of the circuits as shares of all edges, ascending.
        metric: ``logit-difference`` or ``divergence``.
        window: the tokens at which edges are cut, as in :func:`attribute`.
        progress: show a progress bar.
    """
    sizes, keeps = sizes_of(circuit, shares), Keeping(lens, pairs, metric=metric, window=window)
    found = [keeps(circuit.top(size)) for size in progress_bar(sizes, desc="faithfulness", unit="size", show=progress)]
    return Faithfulness(tuple(size / len(circuit.graph) for size in sizes), tuple(found))


def sizes_of(circuit: Circuit, shares: Sequence[float]) -> list[int]:
    """The numbers of edges that are some shares of all edges, at least 1."""
    return [max(1, round(share * len(circuit.graph))) for share in shares]


def kept_by(
    lens: EdgeLens, circuit: Circuit, pairs: Pairs, *, metric: str = "logit-difference", window: Window = ALL
) -> float:
    """Measure the faithfulness of one circuit: the share of the metric's fall from clean to corrupt that it prevents.

    Args:
        circuit: the circuit whose edges are kept.
        pairs: texts other than those that the circuit was chosen on.
        metric: ``logit-difference`` or ``divergence``.
        window: the tokens at which edges are cut; the corrupt run is then the run in which all edges are cut there.

    Raises:
        NotApplicable: if the texts do not differ in the metric.
    """
    return Keeping(lens, pairs, metric=metric, window=window)(circuit)


class Keeping:
    """Measures circuits of any size on the same pairs as :func:`kept_by` does; clean and corrupt texts are run once.

    Args:
        lens: the model.
        pairs, metric, window: as in :func:`kept_by`.

    Raises:
        NotApplicable: if the texts do not differ in the metric.
    """

    @torch.no_grad()
    def __init__(self, lens: EdgeLens, pairs: Pairs, *, metric: str = "logit-difference", window: Window = ALL) -> None:
        self._lens, self._window = lens, window
        self._parts: list[tuple[Ids, Ids, Metric]] = []
        ends = torch.zeros(2, dtype=torch.float64)
        logits = partial(lens.logits, last=1)
        for clean, corrupt, right, wrong in pairs.parts(lens.few_rows):
            measure = metric_of(metric, logits, clean, right, wrong)
            nothing = torch.zeros_like(lens.graph.edges, device=clean.device)
            lost = logits(corrupt) if window == ALL else lens.cut(clean, corrupt, nothing, window, 1)
            ends += torch.stack([_sum(measure(run)) for run in (lost, logits(clean))])
            self._parts.append((clean, corrupt, measure))
        self._lost, self._whole = ends.tolist()
        if self._lost == self._whole:
            raise NotApplicable("the clean and the corrupt texts do not differ in the metric: give other pairs")

    @torch.no_grad()
    def __call__(self, circuit: Circuit) -> float:
        """The share of the metric that a circuit keeps."""
        kept = torch.zeros((), dtype=torch.float64)
        for clean, corrupt, measure in self._parts:
            edges = circuit.edges.to(clean.device)
            kept += _sum(measure(self._lens.cut(clean, corrupt, edges, self._window, 1)))
        return (float(kept) - self._lost) / (self._whole - self._lost)


def _sum(values: Tensor) -> Tensor:
    return values.double().sum().cpu()

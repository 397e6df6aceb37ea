"""How much of a behaviour a circuit keeps when everything outside of it is corrupt: the measures of MIB."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm

from probe.circuits.attribution import measure_of
from probe.circuits.circuit import Circuit
from probe.circuits.lens import EdgeLens
from probe.circuits.pairs import Pairs

#: Shares of all edges at which circuits are measured, as in MIB (Mueller et al., 2504.13151).
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Faithfulness:
    """Faithfulness by size of the circuit: 1 where it keeps the metric of the whole model, 0 where it keeps nothing.

    Attributes:
        shares: of all edges.
        values: (metric of the circuit − metric of the corrupt run) / (metric of the clean run − the same).
        cpr: area under the curve: more is better, 1 for a model that is kept whole at once.
        cmd: area between the curve and 1: less is better, also for circuits that overshoot.
    """

    shares: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def cpr(self) -> float:
        return self._area(np.asarray(self.values))

    @property
    def cmd(self) -> float:
        return self._area(np.abs(1 - np.asarray(self.values)))

    def at(self, share: float) -> float:
        """The value at a share, by straight lines between those measured."""
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
    progress: bool = False,
) -> Faithfulness:
    """Measure circuits of the strongest edges, size by size; give pairs that the scores were not found on.

    Args:
        circuit: whose scores order the edges.
        shares: of all edges, ascending.
        progress: show a bar.
    """
    sizes = [max(1, round(share * len(circuit.graph))) for share in shares]
    found = [
        kept_by(lens, circuit.top(size), pairs, metric=metric)
        for size in tqdm(sizes, desc="faithfulness", unit="size", disable=not progress)
    ]
    return Faithfulness(tuple(size / len(circuit.graph) for size in sizes), tuple(found))


@torch.no_grad()
def kept_by(lens: EdgeLens, circuit: Circuit, pairs: Pairs, *, metric: str = "logit-difference") -> float:
    """Faithfulness of one circuit: the share of the metric's fall from clean to corrupt text that it prevents."""
    sums = torch.zeros(3, dtype=torch.float64)
    for clean, corrupt, right, wrong in pairs:
        measure = measure_of(lens, metric, clean, right, wrong)
        runs = (lens.cut(clean, corrupt, circuit.edges.to(clean.device)), lens.logits(corrupt), lens.logits(clean))
        sums += torch.stack([measure(run).double().sum().cpu() for run in runs])
    kept, lost, whole = sums.tolist()
    return (kept - lost) / (whole - lost)

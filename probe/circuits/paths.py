"""Path patching: what reaches the logits along one path of edges, and no other way."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from probe.circuits.attribution import measure_of
from probe.circuits.lens import EdgeLens
from probe.circuits.pairs import Pairs
from probe.errors import ProbeError


def path_effect(
    lens: EdgeLens, pairs: Pairs, path: Sequence[str], *, metric: str = "logit-difference"
) -> Float[Tensor, " pairs"]:
    """By how much the metric of each pair changes if the corrupt text comes in along one path alone.

    Wang et al. (2211.00593). A path of one edge to the logits is a direct effect; the path
    ``["embed->a0.h1<v>", "a0.h1->a2.h3<q>", "a2.h3->logits"]`` asks how much goes just that way.

    Args:
        path: names of edges, each of which ends where the next begins; the last one at the logits.

    Raises:
        ProbeError: for an edge that is not there, or that does not begin where the one before it ends.
    """
    places = [lens.graph.edge(name) for name in path]
    if not path or not path[-1].endswith("->logits"):
        raise ProbeError("a path ends at the logits: name its edges from the first to the last")
    for (_, column), name, after in zip(places, path, path[1:], strict=False):
        ends = lens.graph.written_by(lens.graph.readers[column])
        if after.partition("->")[0] not in ends:
            raise ProbeError(f"{after} does not begin where {name} ends: at {' or '.join(ends)}")
    found = []
    for clean, corrupt, right, wrong in pairs:
        measure = measure_of(lens, metric, clean, right, wrong)
        with torch.no_grad():
            found.append(measure(lens.along(clean, corrupt, places)) - measure(lens.logits(clean)))
    return torch.cat(found)

"""Path patching: the effect that reaches the logits along one path of edges only."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from probe.circuits.edges.lens import EdgeLens
from probe.circuits.pairs.pairs import Pairs, metric_of
from probe.errors import ProbeError


def path_effect(
    lens: EdgeLens, pairs: Pairs, path: Sequence[str], *, metric: str = "logit-difference"
) -> Float[Tensor, " pairs"]:
    """Compute how the metric of each pair changes if the corrupt text acts along one path of edges only.

    This is path patching (Wang et al., 2211.00593). A path of one edge to the logits gives a direct effect; the path
    ``["embed->a0.h1<v>", "a0.h1->a2.h3<q>", "a2.h3->logits"]`` gives the effect along these three edges in sequence.

    Args:
        path: names of edges; each begins where the one before it ends, and the last ends at the logits.
        metric: ``logit-difference`` or ``divergence``.

    Returns:
        The change for each pair, in the unit of the metric.

    Raises:
        ProbeError: if an edge does not exist, or the edges do not form a path to the logits.
    """
    places = [lens.graph.edge(name) for name in path]
    if not path or not path[-1].endswith("->logits"):
        raise ProbeError("the path does not end at the logits: name its edges in order, the last one X->logits")
    for (_, column), name, after in zip(places, path, path[1:], strict=False):
        ends = lens.graph.written_by(lens.graph.readers[column])
        if after.partition("->")[0] not in ends:
            raise ProbeError(f"{after} does not begin where {name} ends; begin it at {' or '.join(ends)}")
    found = []
    for clean, corrupt, right, wrong in pairs.parts(lens.rows_that_fit):
        measure = metric_of(metric, partial(lens.logits, last=1), clean, right, wrong)
        with torch.no_grad():
            found.append(measure(lens.along(clean, corrupt, places, 1)) - measure(lens.logits(clean, 1)))
    return torch.cat(found)

"""How much each edge carries: by gradients (edge attribution patching, with integrated gradients), or exactly.

The score of an edge is the change of the metric when the edge alone brings what it brings for the corrupt text.
Attribution (Nanda, 2023; Syed et al., 2310.10348) takes it from one gradient; integrated gradients (Hanna et al.,
2403.17806) from several on the way from the corrupt to the clean run, of the inputs or of the writers' own activations,
which saturated gradients do not fool. Patching every edge in a pass of its own is exact, and dear.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from probe.circuits.circuit import Circuit
from probe.circuits.lens import ALL, EdgeLens, Ids, Metric, Window, Written
from probe.circuits.pairs import Pairs, divergence, logit_difference
from probe.config import nearest
from probe.errors import ProbeError

#: How edges can be scored.
METHODS = {
    "eap": "one gradient, at the clean run",
    "eap-ig-inputs": "gradients on the way from the corrupt to the clean embeddings",
    "eap-ig-activations": "gradients on the way of each block's writers, block by block",
    "exact": "every edge patched in a pass of its own",
}
METRICS = ("logit-difference", "divergence")
_PATCHED = 64
"""Rows of a pass in which edges are patched."""


def attribute(
    lens: EdgeLens,
    pairs: Pairs,
    method: str = "eap-ig-inputs",
    *,
    metric: str = "logit-difference",
    steps: int = 8,
    window: Window = ALL,
    progress: bool = False,
) -> Circuit:
    """Score every edge of a model on pairs of texts.

    Args:
        method: one of :data:`METHODS`.
        metric: ``logit-difference`` of the right next token over the wrong one, or ``divergence`` from the clean run,
            which a single gradient cannot see: its slope is zero there.
        steps: of integrated gradients.
        window: of a long text, the tokens at which edges count: ``(-64, None)`` is the last 64. What is kept of a pass
            grows with them and not with the text; scores of windows side by side add up to those of the whole.
        progress: show a bar.

    Returns:
        All edges with their scores, the mean over pairs; a negative one carries the metric, for without it the metric
        falls.

    Raises:
        ProbeError: for an unknown method or metric.
    """
    scores = edge_scores(lens, pairs, method, metric=metric, steps=steps, window=window, progress=progress)
    return Circuit(lens.graph, scores.mean(0), {"method": method, "metric": metric, "pairs": len(pairs)})


def edge_scores(
    lens: EdgeLens,
    pairs: Pairs,
    method: str = "eap-ig-inputs",
    *,
    metric: str = "logit-difference",
    steps: int = 8,
    window: Window = ALL,
    progress: bool = False,
) -> Float[Tensor, "pairs writers readers"]:
    """What :func:`attribute` gives the mean of: the scores of every pair by itself, in the order of the pairs."""
    for what, said, known in (("method", method, METHODS), ("metric", metric, METRICS)):
        if said not in known:
            raise ProbeError(f"there is no {what} {said!r}; {nearest(said, known)} (of: {', '.join(known)})")
    score = {"exact": _exact, "eap-ig-activations": _through_activations}.get(method, _through_inputs)
    found = []
    for clean, corrupt, right, wrong in tqdm(list(pairs), desc=method, unit="length", disable=not progress):
        measure = measure_of(lens, metric, clean, right, wrong)
        found.append(score(lens, clean, corrupt, measure, 1 if method == "eap" else steps, window).float().cpu())
    return torch.cat(found)


def measure_of(lens: EdgeLens, metric: str, clean: Ids, right: Tensor, wrong: Tensor) -> Metric:
    """A metric for one group of rows."""
    if metric == "divergence":
        with torch.no_grad():
            return divergence(lens.logits(clean))
    return logit_difference(right, wrong)


def _products(
    lens: EdgeLens, apart: Written, slope: Float[Tensor, "readers batch some d_model"]
) -> Float[Tensor, "batch writers readers"]:
    return torch.einsum("sbpd,rbpd->bsr", apart, slope) * lens.graph.edges.to(slope)


def _through_inputs(lens: EdgeLens, clean: Ids, corrupt: Ids, metric: Metric, steps: int, window: Window) -> Tensor:
    """The first step alone, at the clean run, is plain attribution patching."""
    apart = lens.written(corrupt, window) - lens.written(clean, window)
    if steps == 1:
        return _products(lens, apart, lens.gradients(clean, metric, window=window)[1])
    start = "blocks.0.hook_resid_pre"
    first, last = (_kept(lens, ids, [start])[start] for ids in (corrupt, clean))
    slope = torch.zeros((), device=clean.device)
    for share in _midpoints(steps):
        slope = slope + lens.gradients(clean, metric, {start: _put(torch.lerp(first, last, share))}, window)[1] / steps
    return _products(lens, apart, slope)


def _through_activations(
    lens: EdgeLens, clean: Ids, corrupt: Ids, metric: Metric, steps: int, window: Window
) -> Tensor:
    """For the writers of each step of the stream, gradients while these alone move from corrupt to clean."""
    graph = lens.graph
    apart = lens.written(corrupt, window) - lens.written(clean, window)
    scores = torch.zeros(len(clean), *graph.edges.shape, device=apart.device)
    for names, rows in _steps_of_stream(lens):
        ends = [_kept(lens, ids, names) for ids in (corrupt, clean)]
        for share in _midpoints(steps):
            change = {name: _put(torch.lerp(ends[0][name], ends[1][name], share)) for name in names}
            slope = lens.gradients(clean, metric, change, window)[1]
            scores[:, rows] += _products(lens, apart, slope)[:, rows] / steps
    return scores


def _exact(lens: EdgeLens, clean: Ids, corrupt: Ids, metric: Metric, _steps: int, window: Window) -> Tensor:
    edges = lens.graph.edges.to(clean.device)
    with torch.no_grad():
        before = metric(lens.logits(clean))
    scores = torch.zeros(len(clean), *edges.shape, device=clean.device)
    places = edges.nonzero().tolist()
    several = max(1, _PATCHED // len(clean))
    for first in range(0, len(places), several):
        some = places[first : first + several]
        keep = edges.repeat(len(some), 1, 1)
        for i, (row, column) in enumerate(some):
            keep[i, row, column] = False
        logits = lens.cut(
            clean.repeat(len(some), 1), corrupt.repeat(len(some), 1), keep.repeat_interleave(len(clean), 0), window
        )
        for i, (row, column) in enumerate(some):
            scores[:, row, column] = metric(logits[i * len(clean) : (i + 1) * len(clean)]) - before
    return scores


def _midpoints(steps: int) -> list[float]:
    """Where gradients are taken: the midpoint rule, whose error falls with the square of the steps."""
    return [(step + 0.5) / steps for step in range(steps)]


def _put(value: Tensor) -> Callable[..., Tensor]:
    def hook(_: Tensor, **__: Any) -> Tensor:
        return value

    return hook


def _steps_of_stream(lens: EdgeLens) -> list[tuple[list[str], slice]]:
    """The hooks at which the embedding, a block's heads and its MLP can be set, and their rows among the writers."""
    graph, found, row = lens.graph, [(["blocks.0.hook_resid_pre"], slice(0, 1))], 1
    for layer in range(graph.n_layers):
        found.append(([f"blocks.{layer}.attn.hook_z"], slice(row, row + graph.n_heads)))
        found.append(([f"blocks.{layer}.hook_mlp_out"], slice(row + graph.n_heads, row + graph.n_heads + 1)))
        row += graph.n_heads + 1
    return found


@torch.no_grad()
def _kept(lens: EdgeLens, ids: Ids, names: list[str]) -> dict[str, Tensor]:
    return dict(lens.bridge.run_with_cache(ids, names_filter=names)[1].items())

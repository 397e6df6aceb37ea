"""Scores of edges: from gradients (edge attribution patching, with or without integrated gradients), or exact.

The score of an edge is the change of the metric when only that edge carries its activation from the corrupt text.
Attribution patching (Nanda, 2023; Syed et al., 2310.10348) estimates it from one gradient. Integrated gradients (Hanna
et al., 2403.17806) average gradients along the path from the corrupt to the clean run, of the inputs or of the writers'
own activations, so that saturation does not mislead them. Patching each edge in its own pass is exact but expensive.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.circuits.edges.circuit import Circuit
from probe.circuits.edges.lens import ALL, At, EdgeLens, Ids, Metric, Window
from probe.circuits.edges.streams import Streams
from probe.circuits.names import METHODS
from probe.circuits.pairs.pairs import Pairs, metric_of
from probe.config import nearest
from probe.errors import ProbeError
from probe.progress import progress_bar

_PATCHED = 64
"""Rows in one pass of exact patching."""


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
        metric: ``logit-difference``, the logit of the right next token minus that of the wrong one; or ``divergence``
            from the clean run, whose gradient at the clean run is zero, so that ``eap`` cannot use it.
        steps: number of points at which integrated gradients are evaluated.
        window: tokens at which edges count, as the ends of a slice: ``(-64, None)`` is the last 64. The scores
            of adjacent windows add up to those of their union.
        progress: show a progress bar.

    Returns:
        All edges with their scores, averaged over pairs. An edge with a negative score carries the metric: without it
        the metric falls.

    Raises:
        ProbeError: for an unknown method or metric.
    """
    total = torch.zeros(lens.graph.edges.shape, dtype=torch.float64)
    for some in _scored(lens, pairs, method, metric=metric, steps=steps, window=window, progress=progress):
        total += some.double().sum(0)
    about = {"method": method, "metric": metric, "pairs": len(pairs)}
    return Circuit(lens.graph, (total / len(pairs)).float(), about if window == ALL else {**about, "window": window})


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
    """Score every edge on each pair separately; :func:`attribute` returns the mean of these scores.

    Args:
        lens, pairs, method, metric, steps, window, progress: as in :func:`attribute`.

    Returns:
        One table of scores for each pair, in the order of the pairs.

    Raises:
        ProbeError: for an unknown method or metric.
    """
    return torch.cat(list(_scored(lens, pairs, method, metric=metric, steps=steps, window=window, progress=progress)))


def _scored(
    lens: EdgeLens, pairs: Pairs, method: str, *, metric: str, steps: int, window: Window, progress: bool
) -> Iterator[Float[Tensor, "some writers readers"]]:
    """The scores of a few pairs at a time."""
    if method not in METHODS:
        raise ProbeError(
            f"there is no method {method!r}; {nearest(method, METHODS)} (choose from {', '.join(METHODS)})"
        )
    if method != "exact":
        lens.model.check_gradient(f"attribution by {method}")
    score = {"exact": _exact, "eap-ig-activations": _through_activations}.get(method, _through_inputs)
    for clean, corrupt, right, wrong in progress_bar(pairs.parts(lens.few_rows), desc=method, show=progress):
        measure = metric_of(metric, partial(lens.logits, last=1), clean, right, wrong)
        yield score(lens, clean, corrupt, measure, 1 if method == "eap" else steps, window).float().cpu()


class _Products:
    """Sums the scores of edges: what a writer changes, times the slope of the metric at the input of a reader.

    Slopes wait until they fill the room, so that the writers' changes are projected once for many readers.

    Args:
        apart: what each writer adds to the corrupt text, minus what it adds to the clean one.
    """

    def __init__(self, lens: EdgeLens, apart: Streams) -> None:
        self._lens, self._apart, self._room = lens, apart.remembering(lens.kept), lens.room
        self._waiting: list[tuple[slice, Tensor]] = []
        edges = lens.graph.edges
        self.scores = torch.zeros(len(apart.embed), *edges.shape, device=apart.embed.device)
        self._rows, self._weight = slice(0, len(edges)), 1.0

    @contextmanager
    def adding(self, weight: float, rows: slice | None = None) -> Iterator[Callable[[At, Tensor], None]]:
        """Give the function that receives slopes.

        Args:
            weight: what their products are multiplied by.
            rows: the writers whose edges are scored; None for all.
        """
        self._rows = slice(0, len(self._lens.graph.writers)) if rows is None else rows
        self._weight = weight
        yield self._receive
        self._flush()

    def _receive(self, at: At, slope: Float[Tensor, "batch some readers d_model"]) -> None:
        self._waiting.append((self._lens.graph.columns(*at), slope))
        if sum(each.nbytes for _, each in self._waiting) > self._room:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        columns = torch.cat([torch.arange(each.start, each.stop) for each, _ in self._waiting])
        edges = self._lens.graph.edges[:, columns]
        before = slice(self._rows.start, min(self._rows.stop, int(edges.any(1).sum())))
        # Readers before tokens, once for all writers: a product of matrices for each text.
        slopes = torch.cat([slope.transpose(1, 2) for _, slope in self._waiting], 1).float()
        for rows, piece, values in self._apart.pieces(before):
            changes = values.float().transpose(0, 1).flatten(2)
            found = changes @ slopes[:, :, piece].flatten(2).transpose(1, 2)
            found *= edges[rows].to(found) * self._weight
            self.scores[:, rows.start : rows.stop, columns] += found
        self._waiting.clear()


def _through_inputs(lens: EdgeLens, clean: Ids, corrupt: Ids, metric: Metric, steps: int, window: Window) -> Tensor:
    """With one step, the gradient is taken at the clean run: plain attribution patching."""
    products = _Products(lens, lens.streams(corrupt, window) - lens.streams(clean, window))
    start = "blocks.0.hook_resid_pre"
    first, last = (lens.read(ids, [start])[start] for ids in (corrupt, clean))
    for share in [1.0] if steps == 1 else _midpoints(steps):
        with products.adding(1 / steps) as receive:
            lens.slopes(clean, metric, receive, {start: _put(torch.lerp(first, last, share))}, window)
    return products.scores


def _through_activations(
    lens: EdgeLens, clean: Ids, corrupt: Ids, metric: Metric, steps: int, window: Window
) -> Tensor:
    """Gradients while the writers of one hook alone move from corrupt to clean, one hook after the other."""
    products = _Products(lens, lens.streams(corrupt, window) - lens.streams(clean, window))
    for name, rows in _steps_of_stream(lens):
        first, last = (lens.read(ids, [name])[name] for ids in (corrupt, clean))
        for share in _midpoints(steps):
            with products.adding(1 / steps, rows) as receive:
                lens.slopes(clean, metric, receive, {name: _put(torch.lerp(first, last, share))}, window)
    return products.scores


def _exact(lens: EdgeLens, clean: Ids, corrupt: Ids, metric: Metric, _steps: int, window: Window) -> Tensor:
    edges = lens.graph.edges.to(clean.device)
    with torch.no_grad():
        before = metric(lens.logits(clean, 1))
    scores = torch.zeros(len(clean), *edges.shape, device=clean.device)
    all_edges = edges.nonzero().tolist()
    several = max(1, min(_PATCHED, lens.rows_that_fit(clean.shape[1])) // len(clean))
    for first in range(0, len(all_edges), several):
        some = all_edges[first : first + several]
        keep = edges.repeat(len(some), 1, 1)
        for i, (row, column) in enumerate(some):
            keep[i, row, column] = False
        logits = lens.cut(
            clean.repeat(len(some), 1), corrupt.repeat(len(some), 1), keep.repeat_interleave(len(clean), 0), window, 1
        )
        for i, (row, column) in enumerate(some):
            scores[:, row, column] = metric(logits[i * len(clean) : (i + 1) * len(clean)]) - before
    return scores


def _midpoints(steps: int) -> list[float]:
    """Midpoint rule, whose error falls with the square of the number of steps."""
    return [(step + 0.5) / steps for step in range(steps)]


def _put(value: Tensor) -> Callable[..., Tensor]:
    def hook(_: Tensor, **__: Any) -> Tensor:
        return value

    return hook


def _steps_of_stream(lens: EdgeLens) -> list[tuple[str, slice]]:
    """The hooks that set the embedding, each block's heads and its MLP, with their rows among the writers."""
    graph, found, row = lens.graph, [("blocks.0.hook_resid_pre", slice(0, 1))], 1
    for layer in range(graph.n_layers):
        found.append((f"blocks.{layer}.attn.hook_z", slice(row, row + graph.n_heads)))
        found.append((f"blocks.{layer}.hook_mlp_out", slice(row + graph.n_heads, row + graph.n_heads + 1)))
        row += graph.n_heads + 1
    return found

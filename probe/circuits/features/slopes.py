"""How the metric depends on one site: its slope, averaged along the way from the corrupt to the clean state.

The state of the site moves in a straight line from the corrupt to the clean run, and the metric's gradient is
taken at midpoints. All of this runs on the plain model: what a dictionary makes of the state is worked out afterwards.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.adapters import Dictionary
from probe.circuits.edges.lens import ALL, Metric, Window
from probe.circuits.pairs.pairs import Pairs, end_logits, metric_of, rows_that_fit
from probe.errors import ProbeError
from probe.hooks import Apply, TrainingCost, capture, edit
from probe.models import Model, Site, check_frequencies


@dataclass(frozen=True)
class Slopes:
    """A few pairs of equal length, at the sites of one dictionary.

    Attributes:
        clean, corrupt: states at each site, ``[batch, pos, width]``.
        slope: the metric's mean gradient at the site that the dictionary writes.
        total: how far the metric falls when that site takes its state from the corrupt run, in the window alone.
        differ: the tokens at which the states differ, inside the window.
    """

    clean: dict[Site, Tensor]
    corrupt: dict[Site, Tensor]
    slope: Float[Tensor, "batch pos d_out"]
    total: Float[Tensor, " batch"]
    differ: Bool[Tensor, "batch pos"]


def slopes(
    model: Model,
    pairs: Pairs,
    dictionary: Dictionary,
    *,
    metric: str = "logit-difference",
    steps: int = 8,
    window: Window = ALL,
) -> Iterator[Slopes]:
    """Go through the pairs, as many at a time as fit into the model's budget.

    Args:
        metric: one of :data:`~probe.circuits.METRICS`.
        steps: the number of midpoints.
        window: the tokens that count; the states of the others stay those of the clean run.
    """
    if steps < 1:
        raise ProbeError(f"steps is {steps}; it must be at least 1")
    model.check_gradient("attribution to latents")
    site = dictionary.writes
    for clean, corrupt, right, wrong in pairs.on(model.device).parts(_rows(model)):
        measure = metric_of(metric, partial(end_logits, model), clean, right, wrong)
        states = [states_at(model, ids, dictionary.sites) for ids in (clean, corrupt)]
        inside = torch.zeros(clean.shape, dtype=torch.bool, device=clean.device)
        inside[:, slice(*window)] = True
        last = states[0][site]
        first = torch.where(inside[..., None], states[1][site], last)
        slope = torch.zeros_like(last, dtype=torch.float32)
        for step in range(steps):
            slope += _gradient(model, clean, site, torch.lerp(first, last, (step + 0.5) / steps), measure) / steps
        with torch.no_grad():
            whole = measure(end_logits(model, clean))
            with edit(model, {site: Apply(lambda _, first=first: first)}):
                total = whole - measure(end_logits(model, clean))
        differ = torch.stack([(states[0][each] != states[1][each]).any(-1) for each in dictionary.sites]).any(0)
        yield Slopes(states[0], states[1], slope, total.float(), differ & inside)


@torch.no_grad()
def states_at(model: Model, ids: Int[Tensor, "batch pos"], sites: Sequence[Site]) -> dict[Site, Tensor]:
    """The states of a run at some sites, each a tensor of its own."""
    check_frequencies(model.hf, ids.shape[1])
    with capture(model, sites) as acts:
        model.hf(ids, use_cache=False, logits_to_keep=1)
    return {site: acts[site].clone() for site in sites}


def _gradient(
    model: Model, ids: Int[Tensor, "batch pos"], site: Site, state: Tensor, measure: Metric
) -> Float[Tensor, "batch pos d_out"]:
    """The metric's gradient at a site that has a given state."""
    state = state.detach().requires_grad_()
    with torch.enable_grad(), edit(model, {site: Apply(lambda _: state)}):
        return torch.autograd.grad(measure(end_logits(model, ids)).sum(), state)[0].float()


def _rows(model: Model) -> Callable[[int], int]:
    """The number of texts of a pass with gradients that fit; the states of both runs are kept beside it."""
    cost = TrainingCost.of(model)
    few = rows_that_fit(model, 6)
    return lambda width: max(1, min(few(width), int(model.budget // 2 // (cost.row(width) + cost.position))))

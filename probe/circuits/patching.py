"""Activation patching: how much of the metric one state of the clean run restores in the corrupt run.

States are patched by block and token, by whole block, or by head. The map shows where the information that
distinguishes the texts is, and where it is moved.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.circuits.edges.lens import Ids, Metric
from probe.circuits.pairs.pairs import Pairs, end_logits, metric_of, rows_that_fit
from probe.config import nearest
from probe.errors import NotApplicable, ProbeError
from probe.hooks import Apply, capture, edit
from probe.html import html_table
from probe.models import Model
from probe.progress import progress_bar

#: Sites that can be patched.
PATCHED = {
    "resid_pre": "the residual stream that enters a block",
    "resid_post": "the residual stream that leaves a block",
    "attn_out": "what a block's attention adds",
    "mlp_out": "what a block's MLP adds",
    "z": "the output of each head before the output projection",
}
_BY = {"position": "one token", "head": "one head, at all tokens", "block": "all tokens"}
_ROWS = 64
"""The most rows in one pass, and fewer where they would not fit into the model's budget."""


@dataclass(frozen=True)
class PatchMap:
    """The share of the metric that each patched state restores: 0 for the corrupt run, 1 for the clean one.

    Attributes:
        values: one row for each block; one column for each token (the last column is the last token), for each head,
            or one column for the whole block.
        site: the site that was patched, without its layer.
        by: what each column is: ``position``, ``head`` or ``block``.
        about: metric, direction, number of pairs, and the models' names.
    """

    values: Float[Tensor, "layers places"]
    site: str
    by: str
    about: dict[str, Any] = field(default_factory=dict)

    def strongest(self, n: int = 5) -> list[tuple[int, int, float]]:
        """The ``n`` entries of the largest absolute value, as row, column and value."""
        order = self.values.flatten().abs().argsort(descending=True)[:n].tolist()
        places = (divmod(at, self.values.shape[1]) for at in order)
        return [(layer, place, float(self.values[layer, place])) for layer, place in places]

    def __repr__(self) -> str:
        layers, places = self.values.shape
        return f"PatchMap({self.site} by {self.by}, {layers} × {places}, largest {float(self.values.max()):.2f})"

    def _repr_html_(self) -> str:
        rows = [(f"{self.site}.{i}", *(f"{value:.2f}" for value in row)) for i, row in enumerate(self.values.tolist())]
        return html_table((), rows[::-1], f"{self.site} by {self.by}: share of the metric that is restored")


@torch.no_grad()
def patch(
    model: Model,
    pairs: Pairs,
    site: str = "resid_pre",
    by: str | None = None,
    *,
    metric: str = "logit-difference",
    noising: bool = False,
    source: Model | None = None,
    last: int | None = None,
    progress: bool = False,
) -> PatchMap:
    """Put each state of one run into the other, one at a time, and measure the metric.

    Meng et al. (2202.05262); Heimersheim and Nanda (2404.15255) explain what either direction shows.

    Args:
        site: a key of :data:`PATCHED`, which is a kind of site without a layer.
        by: ``position``, ``head`` (only for ``z``) or ``block``. None is ``head`` for ``z`` and ``position`` otherwise.
        metric: ``logit-difference`` or ``divergence`` from the clean run.
        noising: put corrupt states into the clean run instead, and measure what that destroys.
        source: the model whose run of the same text gives the states, if not ``model``; it must have the same shape.
        last: patch only this many tokens at the end, by position; None for all.
        progress: show a progress bar.

    Returns:
        The shares of the metric summed over all pairs. By position there are as many columns as the shortest pair has
        tokens. Tokens before the first at which the texts differ are not patched; their entries are zero.

    Raises:
        ProbeError: for an unknown ``site`` or ``by``.
        NotApplicable: if the source has another shape, or the texts do not differ in the metric.
    """
    by = by or ("head" if site == "z" else "position")
    for what, said, known in (("site to patch", site, PATCHED), ("way to divide a site", by, _BY)):
        if said not in known:
            raise ProbeError(f"there is no {what} {said!r}; {nearest(said, known)} (choose from {', '.join(known)})")
    if by == "head" and site != "z":
        raise ProbeError(f"{site} has no heads; patch z by head")
    source = source or model
    if (source.d_model, source.n_layers) != (model.d_model, model.n_layers):
        raise NotApplicable(f"{source.name} and {model.name} differ in width or depth, so states cannot be exchanged")
    n_heads = model.hf.config.get_text_config().num_attention_heads
    shortest = min(rows.shape[1] for rows in pairs.clean)
    places = {"position": min(shortest, last or shortest), "head": n_heads, "block": 1}[by]
    sums = torch.zeros(model.n_layers, places, dtype=torch.float64)
    ends = torch.zeros(2, dtype=torch.float64)
    measured: list[tuple[Ids, Ids, Metric]] = []
    for clean, corrupt, right, wrong in pairs.on(model.device).parts(_rows_in(model, source)):
        measure = metric_of(metric, partial(end_logits, model), clean, right, wrong)
        ends += torch.stack([measure(end_logits(model, ids)).double().sum().cpu() for ids in (corrupt, clean)])
        measured.append((clean, corrupt, measure))
    lost, whole = ends.tolist()
    if lost == whole:
        raise NotApplicable("the clean and the corrupt texts do not differ in the metric: give other pairs")
    for clean, corrupt, measure in progress_bar(measured, desc=f"patching {site}", unit="length", show=progress):
        into, of = (clean, corrupt) if noising else (corrupt, clean)
        width = clean.shape[1]
        same = int((clean != corrupt).any(0).nonzero()[0]) - (width - places) if by == "position" else 0
        choices = [_choice(by, place - places) for place in range(max(0, same), places)]
        alone = measure(end_logits(model, into)).double().sum().cpu()
        for layer in range(model.n_layers):
            found = _patched(model, source, f"{site}.{layer}", into, of, choices, measure)
            sums[layer] += torch.cat([alone.expand(places - len(found)), found])
    return PatchMap(
        ((sums - lost) / (whole - lost)).float(),
        site,
        by,
        {"metric": metric, "noising": noising, "pairs": len(pairs), "from": source.name, "into": model.name},
    )


def _choice(by: str, place: int) -> tuple[Any, ...]:
    """The index of the exchanged part of a state ``[pos, ...]``; places are counted from the end."""
    if by == "block":
        return (slice(None),)
    return (slice(None), place) if by == "head" else (place,)


def _patched(
    model: Model, source: Model, site: str, into: Ids, of: Ids, choices: list[tuple[Any, ...]], measure: Metric
) -> Tensor:
    """The summed metric for each exchanged part, many of them in one pass."""
    with capture(source, site) as acts:
        source.hf(of.to(source.device))
    theirs, n, found = acts[site], len(into), []
    several = max(1, _rows_in(model, source)(into.shape[1]) // n)
    for first in range(0, len(choices), several):
        some = choices[first : first + several]

        def exchange(state: Tensor, some: list[tuple[Any, ...]] = some) -> Tensor:
            state = state.clone()
            for i, choice in enumerate(some):
                block = state[i * n : (i + 1) * n]
                block[:, *choice] = theirs[:, *choice].to(block)
            return state

        with edit(model, {site: Apply(exchange)}):
            logits = end_logits(model, into.repeat(len(some), 1))
        found += [measure(logits[i * n : (i + 1) * n]).double().sum().cpu() for i in range(len(some))]
    return torch.stack(found)


def _rows_in(*models: Model) -> Callable[[int], int]:
    """Gives the number of rows of one pass for a number of tokens; each row's states at one site are held twice."""
    return lambda width: min(_ROWS, *(rows_that_fit(model, 2)(width) for model in models))

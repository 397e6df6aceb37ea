"""Directions that need no training: differences of means, and the decoder rows of an SAE."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probe.errors import ProbeError
from probe.models import Model
from probe.steering.gates import GateBatch
from probe.steering.mechanism import FixedVectors
from probe.steering.prefix import resid_below
from probe.taxonomy import Taxonomy


def difference_of_means(
    base: Model, batches: Sequence[GateBatch], n_behaviours: int, layer: int, *, persistent: bool = False
) -> FixedVectors:
    """Make one vector for each behaviour: the mean state at its gates minus the mean state over all emitted tokens.

    Steering changes the *next* token, so the states are those that predict each token (Venhoff et al., 2506.18167;
    Ward et al., 2507.12638).

    Args:
        base: the base model, whose states are averaged.
        batches: from :func:`~probe.steering.collect_gates`.
        n_behaviours: K of the taxonomy.
        layer: the 0-based steering layer.
        persistent: whether later tokens see the shifted states; see :class:`~probe.steering.Mechanism`.

    Returns:
        A mechanism of strength one. The vector of a behaviour without a gate is zero.
    """
    sums = torch.zeros(n_behaviours, base.d_model, device=base.device)
    counts = torch.zeros(n_behaviours, device=base.device)
    whole, tokens = torch.zeros(base.d_model, device=base.device), 0
    for batch in batches:
        hidden = resid_below(base, batch, layer)
        behaviour = batch.behaviour[batch.gate]
        sums.index_add_(0, behaviour, hidden[batch.places].float())
        counts += torch.bincount(behaviour, minlength=n_behaviours)
        rows, emitted = batch.forced.emitted.nonzero(as_tuple=True)
        whole += hidden[rows, batch.forced.predicts[rows, emitted]].float().sum(0)
        tokens += len(rows)
    difference = sums / counts.clamp(min=1)[:, None] - whole / max(tokens, 1)
    return FixedVectors.of(torch.where(counts[:, None] > 0, difference, 0.0), layer, persistent=persistent)


def decoder_rows(
    taxonomy: Taxonomy, norms: Float[Tensor, " behaviours"], base: Model, layer: int, *, persistent: bool = False
) -> FixedVectors:
    """Use the rows of the SAE's decoder as directions in the base model, each with a given norm.

    The rows come from the thinking model's residual stream; the arm tests whether they mean the same in the base model
    (RISE, 2512.23988, steers with decoder rows in the model that they come from).

    Args:
        taxonomy: the taxonomy whose decoder rows are used.
        norms: the norm of each vector.
        layer: the 0-based steering layer.
        persistent: whether later tokens see the shifted states; see :class:`~probe.steering.Mechanism`.

    Raises:
        ProbeError: if the two models differ in width.
    """
    rows = taxonomy.directions
    if rows.shape[1] != base.d_model:
        raise ProbeError(
            f"decoder rows are {rows.shape[1]} wide, {base.name} is {base.d_model} wide; leave out the arm decoder-rows"
        )
    rows = nn.functional.normalize(rows.to(norms), dim=1) * norms[:, None]
    return FixedVectors.of(rows, layer, persistent=persistent)

"""Directions that nobody has to train: differences of means, and the rows of an SAE's decoder."""

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
    """Of each behaviour: the base model's mean state where it should come, minus that over all tokens of the text.

    What is steered towards is the *next* token's behaviour, so states are those that predict it (Venhoff et al.,
    2506.18167; Ward et al., 2507.12638). A behaviour without a gate gets no push at all.

    Args:
        batches: from :func:`~probe.steering.gates.collect_gates`.
    """
    sums = torch.zeros(n_behaviours, base.d_model, device=base.device)
    counts = torch.zeros(n_behaviours, device=base.device)
    whole, tokens = torch.zeros(base.d_model, device=base.device), 0
    for batch in batches:
        hidden = resid_below(base, batch, layer).float()
        behaviour = batch.behaviour[batch.gate]
        sums.index_add_(0, behaviour, hidden[batch.places])
        counts += torch.bincount(behaviour, minlength=n_behaviours)
        rows, emitted = batch.forced.emitted.nonzero(as_tuple=True)
        whole += hidden[rows, batch.forced.predicts[rows, emitted]].sum(0)
        tokens += len(rows)
    difference = sums / counts.clamp(min=1)[:, None] - whole / max(tokens, 1)
    return FixedVectors.of(torch.where(counts[:, None] > 0, difference, 0.0), layer, persistent=persistent)


def decoder_rows(
    taxonomy: Taxonomy, norms: Float[Tensor, " behaviours"], base: Model, layer: int, *, persistent: bool = False
) -> FixedVectors:
    """The rows of the SAE's decoder as directions in the base model, each of a given norm.

    They were found in the thinking model's residual stream; that they mean the same in the base model is what the arm
    tests (RISE, 2512.23988, steers with decoder rows in the model that they are from).

    Raises:
        ProbeError: if the two models differ in width.
    """
    rows = taxonomy.directions
    if rows.shape[1] != base.d_model:
        raise ProbeError(
            f"decoder rows are {rows.shape[1]} wide and {base.name} is {base.d_model}: leave the arm decoder-rows out"
        )
    rows = nn.functional.normalize(rows.to(norms), dim=1) * norms[:, None]
    return FixedVectors.of(rows, layer, persistent=persistent)

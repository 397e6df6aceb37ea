"""Directions that need no training: differences of means, and the decoder rows of an SAE."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probe.errors import ProbeError
from probe.hooks import Forced, force, forced_pass, in_rows
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


def difference_of_texts(
    model: Model,
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    others: Sequence[tuple[Sequence[int], Sequence[int]]],
    layer: int,
    *,
    batch_size: int = 16,
) -> FixedVectors:
    """Make one vector: the mean state over some texts minus the mean over others (Rimsky et al., 2312.06681).

    Every emitted token counts, by the state that predicts it.

    Args:
        model: reads the texts.
        texts, others: the token ids of the prompt and of what follows it, for each text.
        layer: the 0-based steering layer.
        batch_size: number of texts that are read together.

    Returns:
        A mechanism with one vector of strength one. It is persistent: later tokens see the shifted states.

    Raises:
        ProbeError: if there is no emitted token on one of the sides.
    """
    site = f"resid_post.{layer}"

    def read(some: Forced) -> tuple[Tensor, ...]:
        states = forced_pass(model, some, site, logits=False).predicting(site).double()
        return ((states * some.emitted[..., None]).sum(1),)

    def mean(side: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Float[Tensor, " d_model"]:
        side = sorted((text for text in side if len(text[1])), key=lambda text: len(text[0]) + len(text[1]))
        tokens = sum(len(text) for _, text in side)
        if not tokens:
            raise ProbeError("no text has a token, so there is no mean state; give more texts")
        total = torch.zeros(model.d_model, dtype=torch.double, device=model.device)
        for at in range(0, len(side), batch_size):
            prompts, emitted = zip(*side[at : at + batch_size], strict=True)
            total += in_rows(model, force(model, prompts, emitted), read, what=f"reading {site}")[0].sum(0)
        return total / tokens

    vector = (mean(texts) - mean(others)).float()
    return FixedVectors.of(vector[None], layer, persistent=True)


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

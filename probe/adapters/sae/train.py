"""Trains ordinary SAEs on token activations with SAELens, and measures how well an SAE reconstructs states."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probe.activations import ActivationStore
from probe.adapters.sae.insertion import Replace, outliers
from probe.adapters.sae.plain import check_sae, name_of
from probe.adapters.training.objective import kl, with_insertion
from probe.adapters.training.packing import Example, pack
from probe.convergence import Schedule
from probe.errors import ProbeError
from probe.hooks import Head, TrainingCost, capture, score_logits
from probe.models import Model, Site, seeded
from probe.taxonomy import for_inference, train_with_saelens

if TYPE_CHECKING:
    from sae_lens import SAE


_CHECK_EVERY, _PATIENCE = 50, 100
"""Steps between two looks at the error, and steps without progress after which the learning rate falls."""


def train_sae(
    store: ActivationStore | Iterator[Tensor],
    site: str | Site,
    *,
    latents: int,
    k: int = 32,
    steps: int = 4000,
    batch_size: int = 1024,
    lr: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = False,
) -> "SAE[Any]":
    """Train a top-k SAE (2406.04093) with SAELens' trainer and its auxiliary loss for dead latents.

    Args:
        store: what ``harvest(..., unit="token", folder=...)`` returns, which leaves outlier tokens out; or an endless
            iterator of batches of states, ``[batch_size, d_model]`` each.
        site: the site of the states; with a store, one of its sites.
        k: number of latents that are active at a token.
        steps: the maximum number of steps. Training ends earlier, when the error of the last steps stops falling.
        batch_size: tokens in a step.
        lr: highest learning rate.
        seed: seeds the weights and the order of the tokens.
        device: where the SAE is trained.
        progress: show a bar.

    Returns:
        The SAE as SAELens loads it for inference: float32, frozen, with decoder rows of length one. Its
        ``cfg.metadata.converged`` says whether the error stopped falling before the maximum number of steps.

    Raises:
        ProbeError: if the site was not harvested, or ``k`` is not between 1 and ``latents``.
    """
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    if not 1 <= k <= latents:
        raise ProbeError(f"k is {k} of {latents} latents: give a number from 1 to {latents}")
    site = Site.parse(site)
    provider = store.batches(site, batch_size, seed) if isinstance(store, ActivationStore) else store
    first = next(provider)
    schedule = Schedule(steps, _CHECK_EVERY, _PATIENCE)
    with seeded(seed, device):
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=first.shape[1], d_sae=latents, k=k, device=device))
        with torch.no_grad():
            sae.b_dec.copy_(first.mean(0))  # so that latents need not encode the mean
        train_with_saelens(
            sae,
            (batch.to(device) for batch in provider),
            steps,
            batch_size,
            lr=lr,
            device=device,
            schedule=schedule,
            progress=f"SAE at {site}" if progress else None,
        )
    made = for_inference(sae)
    made.cfg.rescale_acts_by_decoder_norm = False  # decoder rows have length one now
    made.cfg.metadata = SAEMetadata(hook_name=name_of(site), converged=schedule.converged)
    return made.eval()


@torch.no_grad()
def sae_quality(model: Model, sae: "SAE[Any]", texts: list[Example]) -> dict[str, float]:
    """Measure how well an SAE reconstructs a model's states, at tokens that are neither special nor outliers.

    Args:
        texts: texts that the SAE was not trained on.

    Returns:
        ``variance_explained``; ``kl``, KL(model ‖ model with the SAE inserted) in nats a token; ``l0``, active latents
        at a token; ``dead``, the share of latents that no token activates.

    Raises:
        ProbeError: if the states do not vary.
    """
    site, kls, head, cost = check_sae(sae, model), [], Head(model), TrainingCost.of(model, models=2)
    tokens, active, error, square = 0, 0, 0.0, 0.0
    total = torch.zeros(model.d_model, dtype=torch.float64)
    fired = torch.zeros(int(sae.cfg.d_sae), dtype=torch.bool, device=model.device)
    special = torch.tensor(sorted(model.tokenizer.all_special_ids), device=model.device)
    for text in texts:
        batch = pack(model, [text], len(text.ids))
        with capture(model, site, stop=False) as acts:
            plain = batch.states(model)
        with with_insertion(model, Replace(sae), batch):
            over = [(head, plain), (head, batch.states(model))]
        kls.append(score_logits(kl, over, batch.counts, size=cost.chunk(model.budget)))
        state = acts[site][~torch.isin(batch.ids, special) & ~outliers(acts[site], batch.segment)].to(sae.dtype)
        latents = sae.encode(state)
        error += float((state - sae.decode(latents)).square().sum())
        exact = state.cpu().double()
        square, total = square + float(exact.square().sum()), total + exact.sum(0)
        fired |= (latents > 0).any(0)
        active, tokens = active + int((latents > 0).sum()), tokens + len(state)
    varies = square - float(total.square().sum()) / max(tokens, 1)
    if not varies > 1e-12 * square:
        raise ProbeError(
            f"the states at {site} do not vary over {tokens} tokens, so no SAE explains them: give other texts"
        )
    return {
        "variance_explained": 1 - error / varies,
        "kl": float(torch.cat(kls).mean()),
        "l0": active / tokens,
        "dead": float((~fired).float().mean()),
    }

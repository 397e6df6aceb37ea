"""Ordinary SAEs, of thousands of latents, on the token activations of a harvest; SAELens trains them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probe.activations import ActivationStore
from probe.adapters.sae.folders import site_of
from probe.adapters.sae.insertion import Replace, outliers
from probe.adapters.training.objective import kl, with_insertion
from probe.adapters.training.packing import Example, pack
from probe.errors import ProbeError
from probe.hooks import capture
from probe.models import Model, Site
from probe.taxonomy import for_inference, train_with_saelens

if TYPE_CHECKING:
    from sae_lens import SAE


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
    """Train a top-k SAE with SAELens' trainer and its auxiliary loss for dead latents.

    Args:
        store: of ``harvest(..., unit="token", folder=...)``; outlier tokens are left out already. Or batches without
            end, of states that were gathered otherwise.
        site: one of the store's; where the states are from.
        latents: how many.
        k: how many are active at a token.

    Returns:
        As SAELens loads it for inference, its decoder's rows of length one, in float32 and frozen.

    Raises:
        ProbeError: if the site was not harvested, or k is more than there are latents.
    """
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    if not 1 <= k <= latents:
        raise ProbeError(f"k is {k} of {latents} latents: give from 1 to as many as there are")
    site = Site.parse(site)
    provider = store.batches(site, batch_size, seed) if isinstance(store, ActivationStore) else store
    first = next(provider)
    torch.manual_seed(seed)
    config = TopKTrainingSAEConfig(d_in=first.shape[1], d_sae=latents, k=k, device=device)
    sae = TopKTrainingSAE(config)
    with torch.no_grad():
        sae.b_dec.copy_(first.mean(0))  # so that the SAE explains what varies
    train_with_saelens(
        sae,
        (batch.to(device) for batch in provider),
        steps,
        batch_size,
        lr=lr,
        device=device,
        progress=f"SAE at {site}" if progress else None,
    )
    made = for_inference(sae)
    made.cfg.rescale_acts_by_decoder_norm = False  # rows are of length one now: nothing is left to rescale by
    made.cfg.metadata = SAEMetadata(hook_name=site.lens)
    return made.eval()


@torch.no_grad()
def sae_quality(model: Model, sae: "SAE[Any]", texts: list[Example]) -> dict[str, float]:
    """How well an SAE stands in for a model's states, at tokens that are neither special nor outliers.

    Returns:
        ``variance_explained``; ``kl``, in nats a token, of the model with the SAE inserted from the model without;
        ``l0``, latents active at a token; ``dead``, the share of latents that no token activates.
    """
    site, kls, errors, states, active = site_of(sae), [], [], [], []
    special = torch.tensor(sorted(model.tokenizer.all_special_ids), device=model.device)
    for text in texts:
        batch = pack(model, [text], len(text.ids))
        with capture(model, site, stop=False) as acts:
            plain = batch.logits(model)
        with with_insertion(model, Replace(sae), batch):
            kls.append(kl(plain, batch.logits(model)))
        state = acts[site][~torch.isin(batch.ids, special) & ~outliers(acts[site], batch.segment)].to(sae.dtype)
        latents = sae.encode(state)
        errors.append((state - sae.decode(latents)).square().sum(-1))
        states.append(state)
        active.append(latents > 0)
    every, fired = torch.cat(states), torch.cat(active)
    total = (every - every.mean(0)).square().sum()
    return {
        "variance_explained": 1 - float(torch.cat(errors).sum() / total),
        "kl": float(torch.cat(kls).mean()),
        "l0": float(fired.float().sum(-1).mean()),
        "dead": float((~fired.any(0)).float().mean()),
    }

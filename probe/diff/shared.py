"""One SAE over both models, and the latents that only one of them uses, found by scaling each latent to each model.

Most model-specific latents of a crosscoder with an L1 penalty are artefacts (Minder et al., 2504.02922). An SAE trained
on the states of both models together, with latents scaled to each, is cheaper and has fewer artefacts (the fixed-SAE
track of 2609.15064).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.activations import batches, read
from probe.adapters import train_sae
from probe.errors import NotApplicable
from probe.models import Model, Pair

if TYPE_CHECKING:
    from sae_lens import SAE

_BATCH_TOKENS = 4096
_ONLY = 0.5
"""A latent belongs to one model only if its scale in the other is below this share of its scale in that model."""
SELDOM = 20
"""The smallest number of active tokens for a latent to be judged."""


@dataclass(frozen=True)
class SharedLatents:
    """The latents of an SAE over both models.

    Attributes:
        sae: the SAE, a SAELens object.
        ratio: scale of each latent in the base over its scale in the thinking model (β base / β thinking), at tokens
            where it is active in the thinking model.
        back: β thinking / β base, at tokens where the latent is active in the base.
        active: number of tokens at which each latent is active, in the base and in the thinking model.
        variance_explained: share of the variance of both models' states that the SAE explains.
    """

    sae: "SAE[Any]"
    ratio: Float[Tensor, " latents"]
    back: Float[Tensor, " latents"]
    active: Float[Tensor, "2 latents"]
    variance_explained: float

    def __repr__(self) -> str:
        return (
            f"SharedLatents({len(self.ratio)} latents, {len(self.thinking_only)} only in thinking, "
            f"{len(self.base_only)} only in base)"
        )

    @property
    def thinking_only(self) -> list[int]:
        """Latents that the thinking model uses and the base does not."""
        return self._only(self.ratio, self.active[1])

    @property
    def base_only(self) -> list[int]:
        """Latents that the base uses and the thinking model does not."""
        return self._only(self.back, self.active[0])

    def _only(self, ratio: Tensor, active: Tensor) -> list[int]:
        return ((ratio < _ONLY) & (active >= SELDOM)).nonzero()[:, 0].tolist()


@torch.no_grad()
def states_of(model: Model, texts: Sequence[Sequence[int]], site: str) -> Float[Tensor, "tokens d_model"]:
    """Read a site at every token of some texts except the first of each, which is often an attention sink.

    Args:
        texts: token ids of each text.
        site: the site, such as ``resid_post.2``.
    """
    found: dict[int, Tensor] = {}
    for batch in batches([len(text) for text in texts], _BATCH_TOKENS):
        states, real = read(model, [texts[i] for i in batch], [site])
        for row, i in enumerate(batch):
            found[i] = states[site][row][real[row]][1:].float().cpu()
    return torch.cat([found[i] for i in sorted(found)])


def shared_latents(
    pair: Pair,
    texts: Sequence[Sequence[int]],
    *,
    layer: int,
    latents: int = 256,
    k: int = 8,
    steps: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> SharedLatents:
    """Train an SAE on the states of both models at the same tokens, and scale its latents to each model.

    Args:
        texts: token ids that both models read. Every second text is for training, the others are for scaling.
        layer: layer of ``resid_post``, counted from 0.
        k: number of latents that are active at a token.
        seed: seeds the initial weights and the batches.
        progress: show a progress bar.

    Raises:
        NotApplicable: if the two models differ in width, or there are fewer than two texts.
    """
    if pair.base.d_model != pair.thinking.d_model:
        raise NotApplicable(f"{pair.base.name} and {pair.thinking.name} differ in width, so no SAE fits both")
    if len(texts) < 2:
        raise NotApplicable("an SAE over both models needs texts for training and others for scaling: give two or more")
    site = f"resid_post.{layer}"
    learn, rest = ([states_of(model, texts[at::2], site) for model in (pair.base, pair.thinking)] for at in (0, 1))
    pooled = torch.cat(learn)
    # One scale for both models, so that their differences remain.
    scale = pooled.square().mean().sqrt()
    sae = train_sae(
        _random_batches(pooled / scale, 512, seed), site, latents=latents, k=k, steps=steps, batch_size=512, seed=seed,
        progress=progress,
    )  # fmt: skip
    base, thinking = (states / scale for states in rest)
    return scaled_latents(sae, base, thinking)


@torch.no_grad()
def scaled_latents(
    sae: "SAE[Any]", base: Float[Tensor, "tokens d_model"], thinking: Float[Tensor, "tokens d_model"]
) -> SharedLatents:
    """Scale each latent to both models' states at the same tokens: ``β = argmin ‖β·f·d − h‖²`` (Minder et al.).

    The reconstruction by all other latents is subtracted from each state first, so that a direction shared by several
    latents is not attributed to one of them.

    Args:
        sae: the SAE, a SAELens object.
        base: states of the base.
        thinking: states of the thinking model at the same tokens.
    """
    sides = (base, thinking)
    codes = [sae.encode(side) for side in sides]
    made = [sae.decode(code) for code in codes]
    pooled = torch.cat(sides)
    error = (pooled - torch.cat(made)).square().sum()
    variance = (pooled - pooled.mean(0)).square().sum()
    directions = sae.W_dec
    betas = torch.zeros(2, 2, len(directions))  # [active in, scaled to, latent]
    for active_in in range(2):
        f = codes[active_in]
        below = f.square().sum(0) * directions.square().sum(1) + 1e-9
        for to in range(2):
            residual = sides[to] - made[to]
            # State minus other latents = residual + this latent's own part in that model.
            along = torch.einsum("tl,td,ld->l", f, residual, directions)
            own = (f * codes[to]).sum(0) * directions.square().sum(1)
            betas[active_in, to] = (along + own) / below
    active = torch.stack([(code > 0).sum(0) for code in codes]).float()
    return SharedLatents(
        sae,
        betas[1, 0] / betas[1, 1].clamp(min=1e-6),
        betas[0, 1] / betas[0, 0].clamp(min=1e-6),
        active,
        float(1 - error / variance),
    )


def _random_batches(states: Float[Tensor, "tokens d_model"], batch_size: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield states[torch.randint(len(states), (batch_size,), generator=generator)]

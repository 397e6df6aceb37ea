"""One SAE over both models: which latents only one of them uses, told by how much each has to be scaled.

A crosscoder with an L1 penalty makes most of its "only here" latents up (Minder et al., 2504.02922). An SAE trained on
the states of both models together, with latents scaled to each, is cheaper and makes up fewer (the fixed-SAE track of
2609.15064).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.activations import batches, read
from probe.adapters import train_sae
from probe.errors import ProbeError
from probe.models import Model, Pair

if TYPE_CHECKING:
    from sae_lens import SAE

_BATCH_TOKENS = 4096
_ONLY = 0.5
"""A latent is one model's own if the other needs it less than this share as much."""
_SELDOM = 20
"""Tokens at which a latent must be active to be told anything about."""


@dataclass(frozen=True)
class SharedLatents:
    """The latents of an SAE over both models.

    Attributes:
        sae: SAELens' own object.
        ratio: how much of the latent the base's states hold over how much the thinking model's do, where it is active
            in the thinking model: β base / β thinking.
        back: the same the other way, where it is active in the base.
        active: tokens at which each is active, in base and thinking, ``[2, latents]``.
        variance_explained: of both models' states.
    """

    sae: "SAE[Any]"
    ratio: Float[Tensor, " latents"]
    back: Float[Tensor, " latents"]
    active: Float[Tensor, "2 latents"]
    variance_explained: float

    @property
    def thinking_only(self) -> list[int]:
        """Latents that the thinking model has and the base lacks."""
        return self._only(self.ratio, self.active[1])

    @property
    def base_only(self) -> list[int]:
        """Latents that training took away."""
        return self._only(self.back, self.active[0])

    def _only(self, ratio: Tensor, active: Tensor) -> list[int]:
        return ((ratio < _ONLY) & (active >= _SELDOM)).nonzero()[:, 0].tolist()


@torch.no_grad()
def states_of(model: Model, texts: Sequence[Sequence[int]], site: str) -> Float[Tensor, "tokens d_model"]:
    """A site at every token of some texts, text by text, but for the first token of each, which is often a sink."""
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
    """Train an SAE on the states of both models at the same tokens, and scale its latents to each.

    Args:
        texts: token ids that both models read; every second one is for training, the others are for scaling.
        layer: of ``resid_post``.
        progress: show a bar.

    Raises:
        ProbeError: if the two models differ in width, or there are fewer than two texts.
    """
    if pair.base.d_model != pair.thinking.d_model:
        raise ProbeError(f"{pair.base.name} and {pair.thinking.name} differ in width: they share no SAE")
    if len(texts) < 2:
        raise ProbeError("an SAE over both models needs texts to learn from and texts to be told by: give two or more")
    site = f"resid_post.{layer}"
    learn, held = ([states_of(model, texts[at::2], site) for model in (pair.base, pair.thinking)] for at in (0, 1))
    pooled = torch.cat(learn)
    # One scale for both, so that what differs between them is left.
    scale = pooled.square().mean().sqrt()
    sae = train_sae(
        _drawn(pooled / scale, 512, seed), site, latents=latents, k=k, steps=steps, batch_size=512, seed=seed,
        progress=progress,
    )  # fmt: skip
    base, thinking = (states / scale for states in held)
    return scaled_latents(sae, base, thinking)


@torch.no_grad()
def scaled_latents(
    sae: "SAE[Any]", base: Float[Tensor, "tokens d_model"], thinking: Float[Tensor, "tokens d_model"]
) -> SharedLatents:
    """Scale each latent to both models' states at the same tokens: ``β = argmin ‖β·f·d − h‖²`` (Minder et al.).

    What all other latents make of a token is taken off its state first, so that a direction shared by several latents
    does not pass for one of them.

    Args:
        base, thinking: states of the two models, token by token the same text.
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
            # h minus the others = residual + this latent's own part in that model
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


def _drawn(states: Float[Tensor, "tokens d_model"], batch_size: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield states[torch.randint(len(states), (batch_size,), generator=generator)]

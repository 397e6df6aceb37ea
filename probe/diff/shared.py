"""One SAE over both models, and the latents that only one of them uses, found by scaling each latent to each model.

Most model-specific latents of a crosscoder with an L1 penalty are artefacts (Minder et al., 2504.02922). An SAE trained
on the states of both models together, with latents scaled to each, is cheaper and has fewer artefacts (the fixed-SAE
track of 2609.15064).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.activations import batches, fitting_tokens, read
from probe.adapters import train_sae
from probe.errors import NotApplicable
from probe.models import Model, Pair

if TYPE_CHECKING:
    from sae_lens import SAE

_MOST_TOKENS = 65_536
"""The most tokens whose states are kept, in each model, for training and for scaling."""
_CHUNK = 8192
"""Tokens that are encoded at a time."""
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
def states_of(
    model: Model, texts: Sequence[Sequence[int]], site: str, *, most: int | None = None, seed: int = 0
) -> Float[Tensor, "tokens d_model"]:
    """Read a site at every token of some texts except the first of each, which is often an attention sink.

    Args:
        texts: token ids of each text.
        site: the site, such as ``resid_post.2``.
        most: the largest number of tokens that are kept; if there are more, so many random ones. None keeps all.
        seed: seeds the choice of tokens. The same texts and seed give the same tokens in every model.

    Returns:
        The states in float32 on the CPU, in the order of the tokens.
    """
    lengths = [len(text) for text in texts]
    ends = torch.tensor([max(0, each - 1) for each in lengths]).cumsum(0)
    total = int(ends[-1])
    kept = torch.arange(total)
    if most is not None and total > most:
        kept = kept[torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:most]].sort().values
    found = torch.empty(len(kept), model.d_model)
    for batch in batches(lengths, fitting_tokens(model, lengths)):
        states, real = read(model, [texts[i] for i in batch], [site])
        for row, i in enumerate(batch):
            first = int(ends[i]) - (lengths[i] - 1)
            here = slice(*torch.searchsorted(kept, torch.tensor([first, int(ends[i])])).tolist())
            own = (kept[here] - first + 1).to(real.device)
            found[here] = states[site][row][real[row]][own].float().cpu()
    return found


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

    The SAE is trained on the device of the thinking model. At most 65,536 random tokens of each model are kept for
    training, and as many for scaling.

    Args:
        texts: token ids that both models read. Every second text is for training, the others are for scaling.
        layer: layer of ``resid_post``, counted from 0.
        k: number of latents that are active at a token.
        seed: seeds the choice of tokens, the initial weights and the batches.
        progress: show a progress bar.

    Returns:
        The SAE and the tables of its latents, on the CPU.

    Raises:
        NotApplicable: if the two models differ in width, or there are fewer than two texts.
    """
    if pair.base.d_model != pair.thinking.d_model:
        raise NotApplicable(f"{pair.base.name} and {pair.thinking.name} differ in width, so no SAE fits both")
    if len(texts) < 2:
        raise NotApplicable("an SAE over both models needs texts for training and others for scaling: give two or more")
    site, models = f"resid_post.{layer}", (pair.base, pair.thinking)
    pooled = torch.cat([states_of(model, texts[::2], site, most=_MOST_TOKENS, seed=seed) for model in models])
    # One scale for both models, so that their differences remain.
    scale = pooled.square().mean().sqrt()
    sae = train_sae(
        _random_batches(pooled.div_(scale), 512, seed), site, latents=latents, k=k, steps=steps, batch_size=512,
        seed=seed, device=str(pair.thinking.device), progress=progress,
    )  # fmt: skip
    del pooled
    base, thinking = (states_of(model, texts[1::2], site, most=_MOST_TOKENS, seed=seed).div_(scale) for model in models)
    return scaled_latents(sae, base, thinking)


@torch.no_grad()
def scaled_latents(
    sae: "SAE[Any]", base: Float[Tensor, "tokens d_model"], thinking: Float[Tensor, "tokens d_model"]
) -> SharedLatents:
    """Scale each latent to both models' states at the same tokens: ``β = argmin ‖β·f·d − h‖²`` (Minder et al.).

    The reconstruction by all other latents is subtracted from each state first, so that a direction shared by several
    latents is not attributed to one of them. Some tokens are encoded at a time.

    Args:
        sae: the SAE, a SAELens object; it is moved to the CPU in the end.
        base: states of the base.
        thinking: states of the thinking model at the same tokens.
    """
    where, scaling = sae.W_dec.device, Scaling(sae.W_dec)
    mean = torch.cat([base.mean(0, keepdim=True), thinking.mean(0, keepdim=True)]).mean(0).to(where)
    error, variance = 0.0, 0.0
    for parts in zip(base.split(_CHUNK), thinking.split(_CHUNK), strict=True):
        sides = [part.to(where) for part in parts]
        codes = [sae.encode(side) for side in sides]
        left = [side - sae.decode(code) for side, code in zip(sides, codes, strict=True)]
        error += sum(float(each.square().sum()) for each in left)
        variance += sum(float((side - mean).square().sum()) for side in sides)
        scaling.add(codes, left)
    return scaling.latents(sae.to("cpu"), 1 - error / variance if variance else math.nan)


class Scaling:
    """Sums over tokens from which each latent's scale in both models follows; the tokens come a few at a time.

    Args:
        directions: what each latent writes at activation 1.
    """

    def __init__(self, directions: Float[Tensor, "latents d_model"]) -> None:
        n, more = len(directions), {"device": directions.device, "dtype": torch.float64}
        self._directions = directions
        self._square, self._active = torch.zeros(2, n, **more), torch.zeros(2, n, **more)
        self._along, self._own = torch.zeros(2, 2, n, **more), torch.zeros(2, 2, n, **more)

    def add(
        self, codes: Sequence[Float[Tensor, "tokens latents"]], left: Sequence[Float[Tensor, "tokens d_model"]]
    ) -> None:
        """Add some tokens.

        Args:
            codes: activations of the latents in the base and in the thinking model.
            left: what the reconstruction leaves of each model's state.
        """
        beside = [each @ self._directions.T for each in left]
        for active_in, f in enumerate(codes):
            self._square[active_in] += f.square().sum(0)
            self._active[active_in] += (f != 0).sum(0)
            for to in range(2):
                self._along[active_in, to] += (f * beside[to]).sum(0)
                self._own[active_in, to] += (f * codes[to]).sum(0)

    def latents(self, sae: "SAE[Any]", variance_explained: float) -> SharedLatents:
        """The scales of all latents, on the CPU."""
        length = self._directions.square().sum(1)
        # State minus other latents = what is left + this latent's own part in that model.
        betas = (self._along + self._own * length) / (self._square * length + 1e-9)[:, None]
        betas, active = betas.float().cpu(), self._active.float().cpu()  # betas [active in, scaled to, latent]
        return SharedLatents(
            sae,
            betas[1, 0] / betas[1, 1].clamp(min=1e-6),
            betas[0, 1] / betas[0, 0].clamp(min=1e-6),
            active,
            variance_explained,
        )


def _random_batches(states: Float[Tensor, "tokens d_model"], batch_size: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield states[torch.randint(len(states), (batch_size,), generator=generator)]

"""Small top-k SAEs of many sizes and seeds, trained together.

A taxonomy's SAE has so few latents that a training step is mostly overhead, so the SAEs of a sweep share their steps:
the latents of all sizes lie side by side in one encoder and one decoder, and the error of each reconstruction follows
from products of latents with latents, without computing the reconstruction.

Their input is centred, so they have no biases: with a trainable bias, many different decoders give the same
reconstruction, and two seeds would not agree on one. Without biases an SAE commutes with scaling, so the normaliser can
be folded into it exactly (:attr:`probe.taxonomy.Taxonomy.sae`).
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from probe.activations import whole_batches
from probe.hooks import check_finite
from probe.progress import progress_bar
from probe.taxonomy.sae.config import SAEConfig
from probe.taxonomy.sae.segments import Segments
from probe.taxonomy.sae.starts import spherical_centres
from probe.taxonomy.sae.weights import Weights

#: A check counts as progress if the validation loss of an SAE falls by this share of the variance.
_LEAST_GAIN = 1e-4
#: The number of checks between revivals of latents, and the number of training sentences in which none of them fires.
_REVIVE_EVERY, _REVIVE_SAMPLE = 4, 2048


def train_saes(
    x: Float[Tensor, "sentence d_model"],
    x_validation: Float[Tensor, "validation d_model"],
    sizes: Sequence[int],
    config: SAEConfig,
    *,
    progress: bool = False,
) -> dict[tuple[int, int], Weights]:
    """Train a top-k SAE for every size and seed.

    They start from the centres of spherical k-means. A latent that no sentence activates moves to a sentence that its
    SAE reconstructs badly. The learning rate falls to a tenth when no SAE improves on validation data any more, and
    training ends when that happens again; each SAE keeps its own best state.

    Args:
        x: normalised training sentences.
        x_validation: normalised validation sentences, of other problems.
        sizes: numbers of latents.
        config: seeds, k, steps, batch size, learning rate and patience.
        progress: show a progress bar.

    Returns:
        The SAE of each (size, seed). The other sizes and seeds only influence when training ends, and whether an SAE
        counts as converged.
    """
    run = _Sweep(x, config, sizes)
    best = _Best(run.parameters, run.segments)
    optimiser = torch.optim.Adam(run.parameters, lr=config.lr)
    batches = zip(*(_batches(x, config.batch_size, seed) for seed in config.seeds), strict=True)
    waited, lowered, converged = 0, False, False
    with progress_bar(total=config.steps, desc=f"{run.n_saes} SAEs", unit="step", show=progress) as bar:
        for step in range(config.steps + 1):
            if step % config.check_every == 0 or step == config.steps:
                losses = run.losses(x_validation)
                check_finite(losses, f"the loss of an SAE at step {step}")
                waited = 0 if best.update(losses) else waited + 1
                if waited >= config.patience:
                    if lowered:
                        converged = True
                        break
                    waited, lowered = 0, True
                    best.restore()
                    for group in optimiser.param_groups:
                        group["lr"] = config.lr / 10
                elif step and not lowered and step // config.check_every % _REVIVE_EVERY == 0:
                    run.revive(x, optimiser)
            if step == config.steps:
                break
            optimiser.zero_grad()
            run.step(torch.stack(next(batches))).sum().backward()
            optimiser.step()
            bar.update()
    best.restore()
    return run.weights(converged=converged)


class _Sweep:
    """The parameters of all SAEs, and their loss."""

    def __init__(self, x: Tensor, config: SAEConfig, sizes: Sequence[int]) -> None:
        self.config = config
        self.segments = Segments(sizes, x.device)
        self.n_saes = len(sizes) * len(config.seeds)
        centres = torch.stack([spherical_centres(x, sizes, seed) for seed in config.seeds])
        self.encoder = centres.mT.clone().requires_grad_(True)  # [seed, d_model, latent]
        self.decoder = centres.clone().requires_grad_(True)  # [seed, latent, d_model]
        self.generators = [torch.Generator().manual_seed(seed) for seed in config.seeds]
        self._scale(torch.stack([self._sample(x, generator) for generator in self.generators]))

    @property
    def parameters(self) -> list[Tensor]:
        return [self.encoder, self.decoder]

    def step(self, x: Float[Tensor, "seed batch d_model"]) -> Float[Tensor, "seed size"]:
        """The loss of each SAE on its seed's batch."""
        return self._errors(x)[0].mean(1)

    @torch.no_grad()
    def losses(self, x: Float[Tensor, "sentence d_model"]) -> Float[Tensor, "seed size"]:
        """The share of the variance that each SAE leaves unexplained."""
        total = (x - x.mean(0)).square().sum()
        parts = [self._errors(part.expand(len(self.config.seeds), -1, -1))[0].sum(1) for part in x.split(4096)]
        return torch.stack(parts).sum(0) / total

    def _errors(self, x: Float[Tensor, "seed batch d_model"]) -> tuple[Tensor, list[Tensor]]:
        """|x̂ − x|² = |x|² − 2 Σ aᵢ (x·dᵢ) + Σ aᵢ aⱼ (dᵢ·dⱼ) for each sentence and SAE, and the latents of each size."""
        sizes = self.segments.sizes
        decoder = normalize(self.decoder, dim=-1)
        square = x.square().sum(-1)
        errors, latents = [], []
        for pre, along, rows in zip(
            (x @ self.encoder).split(sizes, -1), (x @ decoder.mT).split(sizes, -1), decoder.split(sizes, 1), strict=True
        ):
            values, places = pre.topk(min(self.config.k, pre.shape[-1]), dim=-1)
            active = torch.zeros_like(pre).scatter(-1, places, values.relu())
            errors.append(square + (active * (active @ (rows @ rows.mT) - 2 * along)).sum(-1))
            latents.append(active)
        return torch.stack(errors, -1), latents

    @torch.no_grad()
    def _scale(self, x: Float[Tensor, "seed batch d_model"]) -> None:
        """Scale each encoder to the least error: several active centres together overshoot."""
        square = x.square().sum(-1, keepdim=True)
        errors, latents = self._errors(x)
        decoder = normalize(self.decoder, dim=-1)
        parts = zip(latents, decoder.split(self.segments.sizes, 1), strict=True)
        norms = torch.stack([(a @ d).square().sum(-1) for a, d in parts], -1)
        # errors = |x|² − 2 x·x̂ + |x̂|², where norms are |x̂|²
        scale = ((square + norms - errors).sum(1) / (2 * norms.sum(1)))[:, self.segments.owner]
        self.encoder.mul_(scale[:, None])

    @torch.no_grad()
    def revive(self, x: Float[Tensor, "sentence d_model"], optimiser: torch.optim.Adam) -> None:
        """Move latents that no sentence of a sample activates to sentences that are reconstructed badly."""
        sample = torch.stack([self._sample(x, generator) for generator in self.generators])
        errors, latents = self._errors(sample)
        for seed, latent in (~(torch.cat(latents, -1) > 0).any(1)).nonzero().tolist():
            chances = errors[seed, :, self.segments.owner[latent]].clamp(min=1e-9).cpu()
            row = sample[seed, int(torch.multinomial(chances, 1, generator=self.generators[seed]))]
            for parameter, at in ((self.encoder, (seed, slice(None), latent)), (self.decoder, (seed, latent))):
                parameter[at] = row
                for moment in ("exp_avg", "exp_avg_sq"):
                    optimiser.state[parameter][moment][at] = 0.0

    @staticmethod
    def _sample(x: Tensor, generator: torch.Generator) -> Tensor:
        return x[torch.randperm(len(x), generator=generator)[:_REVIVE_SAMPLE].to(x.device)]

    @torch.no_grad()
    def weights(self, *, converged: bool = False) -> dict[tuple[int, int], Weights]:
        decoder = normalize(self.decoder, dim=-1)
        return {
            (size, seed): Weights(
                self.encoder[i, :, at].clone(memory_format=torch.contiguous_format),
                decoder[i, at].clone(),
                min(self.config.k, size),
                converged,
            )
            for i, seed in enumerate(self.config.seeds)
            for size, at in zip(self.segments.sizes, self.segments.slices(), strict=True)
        }


class _Best:
    """The best state of each SAE so far."""

    def __init__(self, parameters: Sequence[Tensor], segments: Segments) -> None:
        self.parameters, self.segments = parameters, segments
        self.kept = [parameter.detach().clone() for parameter in parameters]
        self.loss: Tensor | None = None

    def update(self, losses: Float[Tensor, "seed size"]) -> bool:
        """Keep every SAE that improved; say whether any improved by more than noise."""
        better = torch.ones_like(losses, dtype=torch.bool) if self.loss is None else losses < self.loss
        gained = self.loss is None or bool((losses < self.loss - _LEAST_GAIN).any())
        self.loss = losses if self.loss is None else torch.minimum(losses, self.loss)
        latents = better[:, self.segments.owner]
        encoder, decoder = self.parameters
        self.kept = [
            torch.where(latents[:, None, :], encoder.detach(), self.kept[0]),
            torch.where(latents[:, :, None], decoder.detach(), self.kept[1]),
        ]
        return gained

    @torch.no_grad()
    def restore(self) -> None:
        for parameter, kept in zip(self.parameters, self.kept, strict=True):
            parameter.copy_(kept)


def _batches(x: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return whole_batches(x, min(batch_size, len(x)), lambda n: torch.randperm(n, generator=generator))

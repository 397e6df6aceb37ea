"""The weights of a trained SAE of a few latents."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """A bias-free top-k SAE on normalised activations."""

    encoder: Float[Tensor, "d_model behaviour"]
    decoder: Float[Tensor, "behaviour d_model"]
    """Its rows have length one."""
    k: int
    """The most latents that are active at once."""
    converged: bool = True
    """Whether the validation loss stopped falling before the maximum number of steps."""

    def pre_activations(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch behaviour"]:
        """Project activations on the encoder."""
        return x @ self.encoder

    def latents(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch behaviour"]:
        """Keep the ``k`` largest pre-activations where they are positive; the others are zero."""
        values, chosen = self.pre_activations(x).topk(self.k, dim=-1)
        return torch.zeros(*x.shape[:-1], len(self.decoder), device=x.device).scatter_(-1, chosen, values.relu())

    def reconstruct(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Reconstruct activations from their latents."""
        return self.latents(x) @ self.decoder

    def explained(self, x: Float[Tensor, "sentence d_model"]) -> float:
        """Compute the variance explained: one minus the squared error over the squared distance from the mean."""
        error = (self.reconstruct(x) - x).square().sum()
        return 1 - (error / (x - x.mean(0)).square().sum()).item()

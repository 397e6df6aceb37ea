"""The normalisation of activations before an SAE reads them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probe.activations import Rows, by_rows, in_chunks


class Normaliser:
    """Centres activations and scales each to length one.

    Args:
        mean: the vector that is subtracted, ``[d_model]``.
        limit: the norm above which an activation is an outlier; infinite for no outliers.
    """

    def __init__(self, mean: Float[Tensor, " d_model"], limit: float = float("inf")) -> None:
        self.mean = mean.detach().float().cpu()
        self.limit = limit
        self._means = {self.mean.device: self.mean}

    @classmethod
    def fit(cls, x: Float[Tensor, "sentence d_model"] | Rows, outlier_multiple: float) -> "Normaliser":
        """Take the mean of all sentence vectors except outliers, chunk by chunk.

        Args:
            x: raw activations.
            outlier_multiple: a vector is an outlier if its norm is above this many times the median.
        """
        norms = by_rows(_norms, x)
        limit = outlier_multiple * norms.median().item()
        total, count = torch.zeros(x.shape[1], dtype=torch.float64, device=norms.device), 0
        for chunk in in_chunks(x):
            kept = chunk[norms[: len(chunk)] <= limit].float()
            norms = norms[len(chunk) :]
            total += kept.sum(0)
            count += len(kept)
        return cls(total / count, limit)

    def centred(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Subtract the mean, in float32."""
        if x.device not in self._means:
            self._means[x.device] = self.mean.to(x.device)
        return x.float() - self._means[x.device]

    def __call__(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Centre activations and scale them to length one, in float32; one equal to the mean becomes zero."""
        return torch.nn.functional.normalize(self.centred(x), dim=-1)

    def keep(self, x: Float[Tensor, "*batch d_model"] | Rows) -> Bool[Tensor, "*batch"]:
        """Mark the activations that are not outliers."""
        return by_rows(_norms, x) <= self.limit

    def __repr__(self) -> str:
        return (
            f"Normaliser(width {len(self.mean)}, |mean| {self.mean.norm().item():.3g}, outliers above {self.limit:.3g})"
        )


def _norms(x: Tensor) -> Tensor:
    return x.float().norm(dim=-1)

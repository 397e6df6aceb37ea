"""The taxonomy's own top-k SAE, one at a time, with the interface of its baselines."""

import numpy as np
import torch
from jaxtyping import Float

from probe.taxonomy.families.base import Family, Vectors, VectorsError, subsample
from probe.taxonomy.sae.config import SAEConfig
from probe.taxonomy.sae.train import train_saes
from probe.taxonomy.sae.weights import Weights


class TopKSAE(Family):
    """A bias-free top-k SAE of a few latents, after Venhoff et al. 2025 (arXiv 2510.07364).

    It is trained as in a search (:func:`probe.taxonomy.sae.train.train_saes`), but with one size and one seed. A fifth
    of the sentences is the validation set that ends training. A latent without sentences is possible. Scores are
    pre-activations. Directions are the decoder's rows.

    Args:
        n_behaviours: the number of latents.
        k: the maximum number of latents that are active at once.
        random_state: seeds the initial weights, the order of sentences and the validation set.

    Attributes:
        weights_: the SAE; it reads normalised sentence vectors.
    """

    weights_: Weights

    def __init__(self, n_behaviours: int = 8, *, k: int = 1, random_state: int = 0) -> None:
        super().__init__(n_behaviours, random_state=random_state)
        self.k = k

    def reconstruct(self, X: Vectors) -> Float[np.ndarray, "sentence d_model"]:
        """Reconstruct each sentence vector, ``[sentence, d_model]``."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        return self.weights_.reconstruct(torch.tensor(self._read(X))).numpy()

    def _check_settings(self) -> None:
        if not 1 <= self.k <= self.n_behaviours:
            raise VectorsError(
                f"k is {self.k} active latents among {self.n_behaviours} behaviours; choose at most that"
            )

    def _learn(self, x: Float[np.ndarray, "sentence d_model"]) -> None:
        apart = np.zeros(len(x), dtype=bool)
        apart[subsample(len(x), len(x) // 5, self.random_state)] = True
        if not apart.any() or (~apart).sum() < self.n_behaviours:
            apart[:] = True  # too few for a validation set: validate on the training sentences
        own, other = torch.tensor(x[~apart] if not apart.all() else x), torch.tensor(x[apart])
        config = SAEConfig(seeds=(self.random_state,), k=self.k)
        trained = train_saes(own, other, (self.n_behaviours,), config)
        self.weights_ = trained[self.n_behaviours, self.random_state]
        self.directions_ = self.weights_.decoder

    def _scores(self, x: Float[np.ndarray, "sentence d_model"]) -> Float[np.ndarray, "sentence behaviour"]:
        return self.weights_.pre_activations(torch.tensor(x)).numpy()

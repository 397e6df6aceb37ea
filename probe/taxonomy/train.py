"""One small SAE, trained by SAELens.

Its input is centred already, so it has no biases: with a bias that is free to move, the same reconstruction can be
written with many different decoders, and two seeds agree on none of them. Without biases the SAE commutes with scaling,
which also lets the normaliser be folded into it exactly (:attr:`probe.taxonomy.Taxonomy.sae`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.taxonomy.config import TaxonomyConfig


@dataclass(frozen=True)
class Weights:
    """A bias-free top-k SAE on normalised activations; the rows of the decoder have length one."""

    encoder: Float[Tensor, "d_model behaviour"]
    decoder: Float[Tensor, "behaviour d_model"]
    k: int

    def pre_activations(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch behaviour"]:
        return x @ self.encoder

    def latents(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch behaviour"]:
        """The ``k`` largest pre-activations where they are positive, zero elsewhere."""
        values, chosen = self.pre_activations(x).topk(self.k, dim=-1)
        return torch.zeros(*x.shape[:-1], len(self.decoder), device=x.device).scatter_(-1, chosen, values.relu())

    def reconstruct(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        return self.latents(x) @ self.decoder


def train_sae(x: Float[Tensor, "sentence d_model"], size: int, seed: int, config: TaxonomyConfig) -> Weights:
    """Train a top-k SAE on normalised sentence vectors.

    It starts from the centres of a k-means on a sample of the vectors, so that no latent starts out dead.

    Args:
        x: normalised sentence vectors.
        size: the number of latents.
        seed: draws the sample, the start and the order of the batches.
        config: steps, batch size, learning rate, k.
    """
    from sae_lens import LoggingConfig, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    batch_size = min(config.batch_size, len(x))
    # SAELens scales the loss that revives dead latents by (dead latents) / (d_in / 2): nothing, for so few.
    auxiliary = x.shape[1] / 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sae = TopKTrainingSAE(
            TopKTrainingSAEConfig(d_in=x.shape[1], d_sae=size, k=config.k, aux_loss_coefficient=auxiliary)
        )
        centres = _centres(x, size, seed)
        with torch.no_grad():
            sae.W_dec.copy_(centres)
            sae.W_enc.copy_(centres.T)
        sae.b_dec.requires_grad_(False)
        sae.b_enc.requires_grad_(False)
        trainer_config = SAETrainerConfig(
            total_training_samples=config.steps * batch_size,
            train_batch_size_samples=batch_size,
            lr=config.lr,
            lr_end=config.lr / 10,
            lr_decay_steps=config.steps // 3,
            dead_feature_window=max(1, config.steps // 8),
            logger=LoggingConfig(log_to_wandb=False),
        )
        trainer = SAETrainer(trainer_config, sae, _batches(x, batch_size, seed))
        # The trainer's own steps, without its progress bar: many SAEs are trained in a row.
        for _ in range(config.steps):
            trainer.step(next(trainer.data_provider))
            trainer.n_training_steps += 1
    norms = sae.W_dec.detach().norm(dim=1)
    return Weights(sae.W_enc.detach() * norms, sae.W_dec.detach() / norms[:, None], config.k)


def _batches(x: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Whole batches without end, in a new order at each round."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order: Int[Tensor, " sentence"] = torch.randperm(len(x), generator=generator)
        for chosen in order[: len(x) // batch_size * batch_size].split(batch_size):
            yield x[chosen]


def _centres(x: Tensor, size: int, seed: int, sample: int = 8192) -> Float[Tensor, "behaviour d_model"]:
    from sklearn.cluster import KMeans

    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:sample]
    # The stubs of scikit-learn know n_init only as text.
    kmeans = KMeans(size, n_init=4, max_iter=30, random_state=seed)  # pyright: ignore[reportArgumentType]
    means = kmeans.fit(x[chosen].numpy()).cluster_centers_
    return torch.nn.functional.normalize(torch.as_tensor(means, dtype=torch.float32), dim=-1)

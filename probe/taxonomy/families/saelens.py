"""Baselines that are SAEs of other architectures, trained by SAELens.

Like the top-k SAE, they start from the centres of k-means and have no decoder bias, because their input is centred. A
sentence's behaviour is the latent with the largest pre-activation, whether or not that makes it active.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.activations import whole_batches
from probe.convergence import Schedule
from probe.hooks import check_finite
from probe.models import seeded
from probe.progress import progress_bar
from probe.taxonomy.families.base import Family, Vectors, VectorsError, subsample
from probe.taxonomy.families.clusterings import SphericalKMeans

if TYPE_CHECKING:
    from sae_lens import SAE, TrainingSAE

_BATCH = 512
_LR = 3e-3


class SAEFamily(Family):
    """A family whose behaviours are the latents of an SAE.

    A latent without sentences is possible. Scores are pre-activations. Directions are the decoder's rows.

    Args:
        n_behaviours: the number of latents.
        steps: the number of Adam steps, on 512 sentences each.
        random_state: seeds the initial weights and the order of sentences.

    Attributes:
        sae_: the inference SAE of SAELens; it reads normalised sentence vectors.
    """

    sae_: "SAE[Any]"

    def __init__(self, n_behaviours: int = 8, *, steps: int = 400, random_state: int = 0) -> None:
        super().__init__(n_behaviours, random_state=random_state)
        self.steps = steps

    def reconstruct(self, X: Vectors) -> Float[np.ndarray, "sentence d_model"]:
        """Reconstruct each sentence vector, ``[sentence, d_model]``."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        with torch.no_grad():
            return self.sae_(torch.tensor(self._read(X))).numpy()

    @abstractmethod
    def _untrained(self, d_model: int) -> "TrainingSAE[Any]":
        """The training SAE of SAELens, before its weights are set."""

    def _finish(self, sae: "TrainingSAE[Any]", x: Float[Tensor, "sentence d_model"]) -> None:  # noqa: ARG002
        """Finish a trained SAE before it becomes an inference SAE."""
        return

    def _check_settings(self) -> None:
        if self.steps < 1:
            raise VectorsError(f"steps is {self.steps}; at least one is needed")

    def _learn(self, x: Float[np.ndarray, "sentence d_model"]) -> None:
        start = x[subsample(len(x), 8192, self.random_state)]
        centres = SphericalKMeans(self.n_behaviours, random_state=self.random_state).fit(start).directions_
        vectors = torch.from_numpy(np.ascontiguousarray(x))
        with seeded(self.random_state):
            sae = self._untrained(x.shape[1])
        with torch.no_grad():
            sae.W_dec.copy_(centres)
            sae.W_enc.copy_(centres.T)
        sae.b_dec.requires_grad_(False)
        batch_size = min(_BATCH, len(x))
        order = np.random.default_rng(self.random_state)
        batches = whole_batches(vectors, batch_size, lambda n: torch.from_numpy(order.permutation(n)))
        train_with_saelens(sae, batches, self.steps, batch_size)
        with torch.no_grad():
            self._finish(sae, vectors)
        self.sae_ = for_inference(sae)
        self.directions_ = self.sae_.W_dec.detach().clone()

    def _scores(self, x: Float[np.ndarray, "sentence d_model"]) -> Float[np.ndarray, "sentence behaviour"]:
        with torch.no_grad():
            sae: Any = self.sae_  # SAELens declares its encoder's bias only in the classes below
            return (torch.tensor(x) @ sae.W_enc + sae.b_enc).numpy()


class SparseSAEFamily(SAEFamily):
    """An SAE with a given mean number of active latents in a sentence.

    Args:
        n_behaviours: the number of latents.
        k: the mean number of active latents in a sentence.
        steps: the number of Adam steps, on 512 sentences each.
        random_state: seeds the initial weights and the order of sentences.
    """

    def __init__(self, n_behaviours: int = 8, *, k: float = 2.0, steps: int = 400, random_state: int = 0) -> None:
        super().__init__(n_behaviours, steps=steps, random_state=random_state)
        self.k = k

    def _check_settings(self) -> None:
        super()._check_settings()
        if not 0 < self.k <= self.n_behaviours:
            raise VectorsError(
                f"k is {self.k} active latents among {self.n_behaviours} behaviours; choose k above 0 and at most "
                f"{self.n_behaviours}"
            )


class BatchTopKSAE(SparseSAEFamily):
    """An SAE that keeps the ``k × batch size`` largest latents of a whole batch.

    The method is that of Bussmann, Leask and Nanda 2024 (arXiv 2412.06410). For inference it is a JumpReLU SAE with one
    threshold. SAELens tracks that threshold by a moving average that starts at zero; here it is set after training so
    that ``k`` latents are active on average over the training sentences.
    """

    def _untrained(self, d_model: int) -> "TrainingSAE[Any]":
        from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

        # SAELens scales the loss that revives dead latents by (dead latents) / (d_in / 2): almost zero for so few.
        config = BatchTopKTrainingSAEConfig(
            d_in=d_model, d_sae=self.n_behaviours, k=float(self.k), aux_loss_coefficient=d_model / 2
        )
        sae = BatchTopKTrainingSAE(config)
        sae.b_enc.requires_grad_(False)
        return sae

    def _finish(self, sae: "TrainingSAE[Any]", x: Float[Tensor, "sentence d_model"]) -> None:
        latents = (x @ sae.W_enc * sae.W_dec.norm(dim=1)).relu().flatten()
        wanted = round(self.k * len(x))
        # Between the last latent that should be active and the first that should not; zero if all should.
        edge = latents.sort(descending=True).values[wanted - 1 : wanted + 1]
        sae.topk_threshold.fill_(edge.mean() if wanted < len(latents) else 0.0)  # pyright: ignore[reportCallIssue]


class JumpReLUSAE(SparseSAEFamily):
    """An SAE whose latents each have a learned threshold (Rajamanoharan et al. 2024, arXiv 2407.14435).

    A quadratic penalty pulls the mean number of active latents towards ``k``, which it reaches only approximately.
    """

    def _untrained(self, d_model: int) -> "TrainingSAE[Any]":
        from sae_lens import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig

        config = JumpReLUTrainingSAEConfig(
            d_in=d_model,
            d_sae=self.n_behaviours,
            jumprelu_sparsity_loss_mode="quadratic",
            target_l0=float(self.k),
            l0_coefficient=0.1,
        )
        sae = JumpReLUTrainingSAE(config)
        sae.b_enc.requires_grad_(False)
        return sae

    def _finish(self, sae: "TrainingSAE[Any]", x: Float[Tensor, "sentence d_model"]) -> None:  # noqa: ARG002
        # The last step may leave a threshold below zero, which SAELens would correct at the next step.
        sae.threshold.clamp_(min=0)  # pyright: ignore[reportCallIssue]


def train_with_saelens(
    sae: "TrainingSAE[Any]",
    batches: Iterator[Tensor],
    steps: int,
    batch_size: int,
    *,
    lr: float = _LR,
    device: str = "cpu",
    schedule: Schedule | None = None,
    progress: str | None = None,
) -> None:
    """Train an SAE with the trainer of SAELens, without its progress bar.

    Args:
        sae: the SAE; it is changed in place.
        batches: an endless iterator of activations, ``[batch_size, d_in]`` each.
        steps: the number of steps, or the maximum with a ``schedule``.
        lr: Adam's highest learning rate.
        device: where the SAE is trained.
        schedule: says what the learning rate is and when training ends, by the mean squared error of the last steps.
            None: the rate decays to a tenth over the last third of the steps.
        progress: the label of a progress bar; None for no bar.
    """
    from sae_lens import LoggingConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    config = SAETrainerConfig(
        total_training_samples=steps * batch_size,
        train_batch_size_samples=batch_size,
        device=device,
        lr=lr,
        lr_end=lr / 10 if schedule is None else lr,
        lr_decay_steps=steps // 3 if schedule is None else 0,
        dead_feature_window=max(1, steps // 8),
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer = SAETrainer(config, sae, batches)
    recent: list[Tensor] = []
    for done in progress_bar(range(steps), desc=progress, unit="step", show=progress is not None):
        if schedule is not None:
            if recent and schedule.due(done):
                schedule.update(done, float(torch.stack(recent).mean()))
                recent = []
            if schedule.ended(done):
                break
            for group in trainer.optimizer.param_groups:
                group["lr"] = lr * schedule.rate(done)
        found = trainer.step(next(trainer.data_provider))
        check_finite(found.loss.detach(), f"the loss of the SAE at step {trainer.n_training_steps}")
        recent.append(torch.as_tensor(found.losses["mse_loss"]).detach())
        trainer.n_training_steps += 1


def for_inference(sae: "TrainingSAE[Any]") -> "SAE[Any]":
    """Convert a trained SAE to the inference SAE of SAELens, with decoder rows of length one."""
    from sae_lens import SAE

    state = {name: tensor.detach().clone() for name, tensor in sae.state_dict().items()}
    sae.process_state_dict_for_saving_inference(state)
    with seeded(0):  # the SAE begins with random weights, which are replaced
        found = SAE.from_dict(sae.cfg.get_inference_sae_cfg_dict())
    found.load_state_dict(state)
    found.fold_W_dec_norm()
    return found.requires_grad_(False)

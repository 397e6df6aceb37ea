"""Latents as something that the falsification tests can try: cue words injected, removed, reworded (2601.05679)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Float
from torch import Tensor

from probe.adapters import Dictionary
from probe.circuits.features.scores import checked, dictionaries_of
from probe.models import Model

if TYPE_CHECKING:
    from sae_lens import SAE


@dataclass(frozen=True)
class LatentDetector:
    """Latents that fire where their activation exceeds a threshold, for :func:`~probe.falsify`.

    The tests read the mean state of a sentence, so a latent fires in a sentence if it is active in its mean state.

    Attributes:
        dictionary: the SAE or transcoder.
        latents: the numbers of the latents; each is a behaviour of its own.
        threshold: the activation that it must exceed.
    """

    dictionary: Dictionary
    latents: tuple[int, ...]
    threshold: float = 0.0

    @property
    def site(self) -> str:
        """The site of the states."""
        return str(self.dictionary.reads)

    @property
    def labels(self) -> Sequence[str]:
        """A name for each latent."""
        return [f"latent {each}" for each in self.latents]

    @property
    def n_behaviours(self) -> int:
        """The number of latents."""
        return len(self.latents)

    def fires(self, x: Float[Tensor, "sentence d_model"]) -> Bool[Tensor, "sentence behaviour"]:
        """Mark the latents that fire in each mean state."""
        acts = self.dictionary.encode(x.to(self.dictionary.sae.device))
        return (acts[:, list(self.latents)] > self.threshold).to(x.device)


def latent_detector(
    model: Model, sae: "SAE[Any] | str | Path | Dictionary", latents: Sequence[int], *, threshold: float = 0.0
) -> LatentDetector:
    """Make latents testable by :func:`~probe.falsify`, which tells state from cue words.

    Args:
        model: the model that the SAE or transcoder reads.
        latents: the numbers of the latents.
        threshold: the activation that counts as firing, in the mean state of a sentence.

    Raises:
        ProbeError: for a latent that does not exist, or an SAE of another model.
    """
    (dictionary,) = dictionaries_of(model, sae)
    return LatentDetector(dictionary, tuple(checked(dictionary, latents)), threshold)
